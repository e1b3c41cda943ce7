"""Claims about files that must stay out, whatever reads them later."""

import pickle
from pathlib import Path

import pytest

from lora_server.errors import FileRefused
from lora_server.formats.torch_file import read_table
from tests.formats.hostile_pickle import MARKER
from tests.formats.hostile_torch import EVIL, Hostile, corpus
from tests.formats.torch_bytes import reader

CORPUS = corpus()


@pytest.mark.parametrize("hostile", CORPUS, ids=[hostile.name for hostile in CORPUS])
def test_hostile_files_are_refused(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trick is refused with its code, a short printable reason, and nothing executed."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileRefused) as refusal:
        read_table(reader(hostile.data), len(hostile.data))

    assert refusal.value.code == hostile.code, refusal.value.reason
    assert refusal.value.reason.isascii()
    assert refusal.value.reason.isprintable()
    assert len(refusal.value.reason) < 300
    assert not list(tmp_path.iterdir())


def test_the_payload_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpickling the corpus's payload leaves its mark, so an absent mark is evidence."""
    monkeypatch.chdir(tmp_path)

    pickle.loads(EVIL)  # noqa: S301 - the one place where the payload is meant to run

    assert (tmp_path / MARKER).exists()


def test_the_corpus_is_wide() -> None:
    """The corpus has hundreds of distinct files, no two of the same name."""
    assert len(CORPUS) > 400
    assert len({hostile.data for hostile in CORPUS}) == len(CORPUS)
    assert len({hostile.name for hostile in CORPUS}) == len(CORPUS)


def test_a_refused_global_is_named_with_its_place() -> None:
    """The reason says which global stands at which byte, and what to do."""
    hostile = next(item for item in CORPUS if item.name == "zip: gadget os.system")

    with pytest.raises(FileRefused, match=r"^data\.pkl byte \d+: global 'os\.system' is not") as it:
        read_table(reader(hostile.data), len(hostile.data))

    assert it.value.reason.endswith("or as .safetensors")
