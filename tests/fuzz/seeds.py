"""Write the tests' corpora as seeds: `python -m tests.fuzz.seeds DIRECTORY`."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lora_server.formats.safetensors import LENGTH_BYTES
from tests.formats import hostile_safetensors, hostile_torch
from tests.formats.hostile_pickle import roots
from tests.formats.pickle_bytes import Pickle
from tests.formats.safetensors_files import adapter
from tests.formats.test_torch_mutations import FILES, ROOT

MAX_SEED_BYTES = 4096  # libFuzzer mutates small files best; a large one only repeats a small one


def safetensors_seeds() -> Iterator[bytes]:
    """Yield what is let in and what is refused, as whole files and as their headers alone."""
    tricks = [trick.build for trick in hostile_safetensors.TRICKS.values()]
    for build in [*tricks, *hostile_safetensors.ODD_BUT_VALID.values(), lambda: adapter(3)]:
        yield (file := build())  # type: ignore[no-untyped-call]
        yield file[LENGTH_BYTES:][: int.from_bytes(file[:LENGTH_BYTES], "little")]


def torch_seeds() -> Iterator[bytes]:
    """Yield whole files, and bare pickles, which the target puts into a zip."""
    for hostile in hostile_torch.corpus():
        yield hostile.data
    for root, _ in roots().values():
        yield Pickle().dump(root)
    yield from FILES.values()
    yield Pickle().dump(ROOT)


def write(folder: Path, seeds: Iterable[bytes]) -> None:
    """Write each seed once, under its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if len(seed) <= MAX_SEED_BYTES:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


if __name__ == "__main__":
    write(Path(sys.argv[1]) / "safetensors", safetensors_seeds())
    write(Path(sys.argv[1]) / "torch", torch_seeds())
