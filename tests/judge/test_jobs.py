"""Claims about the verdict on whole files, made where the child makes it."""

import pytest

from lora_server.errors import FileRefused
from lora_server.formats.safetensors import MAX_HEADER_SIZE
from lora_server.judge.reading import header_table, whole_table
from tests.formats.hostile_safetensors import LEGACY_TORCH, ODD_BUT_VALID, TRICKS
from tests.formats.safetensors_files import container, encoded, entry, many, one
from tests.judge.files import opened


def test_there_are_many_tricks() -> None:
    """The corpus holds at least 80 tricks, each a file of its own."""
    assert len({trick.build() for trick in TRICKS.values()}) == len(TRICKS) >= 80


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused(name: str) -> None:
    """Each hostile or broken file is refused with the code that names its trick."""
    with opened(TRICKS[name].build()) as fd, pytest.raises(FileRefused) as refusal:
        whole_table(fd, ".safetensors")

    assert refusal.value.code == TRICKS[name].code
    assert len(refusal.value.reason) < 250
    assert refusal.value.reason.isascii()


@pytest.mark.parametrize("name", ODD_BUT_VALID)
def test_an_odd_file_is_let_in(name: str) -> None:
    """What is merely unusual passes, and the whole file is accounted for."""
    content = ODD_BUT_VALID[name]()
    with opened(content) as fd:
        table = whole_table(fd, ".safetensors")

    assert table.expected_size == len(content)


def test_a_header_is_read_before_its_tensors_are_there() -> None:
    """The header's table is known once the header has arrived; the whole is judged later."""
    header = encoded({"a": entry((1000,), 0, 2000)})
    with opened(container(header, b"")) as fd:
        table = header_table(fd, MAX_HEADER_SIZE)

        assert table.expected_size == 8 + len(header) + 2000
        with pytest.raises(FileRefused, match="ends 2000 bytes before its last tensor"):
            whole_table(fd, ".safetensors")


def test_the_header_cap_is_the_caller_s() -> None:
    """A lower cap refuses a header that the usual one lets in."""
    with opened(many(100)) as fd:
        header_table(fd, MAX_HEADER_SIZE)

        with pytest.raises(FileRefused) as refusal:
            header_table(fd, 1000)
    assert refusal.value.code == "lora_header_too_large"


@pytest.mark.parametrize("extension", [".pt", ".ckpt", ".bin", "", ".exe"])
def test_a_safetensors_file_is_not_judged_as_another(extension: str) -> None:
    """The bytes decide, and a name that contradicts them is refused."""
    with opened(one()) as fd, pytest.raises(FileRefused) as refusal:
        whole_table(fd, extension)

    assert refusal.value.code == "lora_wrong_format"


def test_a_torch_file_is_read_without_torch() -> None:
    """A checkpoint that holds more than a magic number is read; this one is cut short."""
    with opened(LEGACY_TORCH) as fd, pytest.raises(FileRefused) as refusal:
        whole_table(fd, ".pt")

    assert refusal.value.code == "lora_corrupt"


def test_the_official_library_has_to_agree() -> None:
    """A header that only we would read, past the library's 100 MB, is refused."""
    size = 100_000_001
    with opened(container(encoded({"a": entry()}).ljust(size))) as fd:
        assert [tensor.name for tensor in header_table(fd, size).tensors] == ["a"]

        with pytest.raises(FileRefused, match="the safetensors library does not read it"):
            whole_table(fd, ".safetensors", size)
