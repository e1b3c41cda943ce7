"""What it costs to find out who is like a LoRA, on one thread.

5,000 stored sketches are searched, then sixteen SDXL files are compared. The worst case is the
one measured: all sixteen come from the same training, so that none can be left out at a glance.
Files lie in memory, written by this process and read by a fresh one.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks import measuring
from lora_server.evaluation.comparison import Comparison
from lora_server.evaluation.weights.comparing import compare
from lora_server.evaluation.weights.opening import SAFETENSORS, Compared, Opened
from lora_server.evaluation.weights.sketches import (
    DIMS,
    SIZE_BYTES,
    Projection,
    Sketcher,
    nearest,
    squared_norm,
)
from lora_server.evaluation.weights.update import Update
from tests.adapters import adapter_tensors, placed, safetensors_header

STORED = 5_000
CANDIDATES = 16
DISTINCT = 4  # files on disk; each is a candidate several times over
RANKS = (16, 64)
PASSES = 5
ROOM = 3 << 30
MIB = 2**20
WEIGHTS = npt.NDArray[np.float32]


def _write(path: Path, rank: int, noise: float, seed: int) -> None:
    """Write an SDXL LoRA in BF16: one training's factors, and noise of this relative size."""
    shared, own = np.random.default_rng(rank), np.random.default_rng(seed)
    tensors = placed(adapter_tensors("sdxl", rank=rank, dtype="BF16"))
    with path.open("wb") as file:
        file.write(safetensors_header(tensors, {}))
        for tensor in tensors:
            if tensor.name.endswith(".alpha"):
                file.write(_bfloat16(np.full(1, rank, np.float32)))
                continue
            values = shared.standard_normal(tensor.numel, np.float32)
            if noise:
                values += noise * own.standard_normal(tensor.numel, np.float32)
            file.write(_bfloat16(values))


def _bfloat16(values: WEIGHTS) -> bytes:
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def _updates(opened: Opened) -> Iterator[Update]:
    """Yield each module of an SDXL file, none of which is cut into pieces."""
    for path in opened.modules:
        for key in opened.keys(path):
            piece = opened.piece(key)
            assert piece is not None
            yield Update(path, piece.up, piece.down)


def _timed(act: Callable[[], object]) -> float:
    """Return the median CPU time of a few passes, after one that does not count."""
    act()
    taken = []
    for _ in range(PASSES):
        begun = time.process_time()
        act()
        taken.append(time.process_time() - begun)
    return median(taken)


def _strangers(random: np.random.Generator, like: bytes) -> bytes:
    """Return stored sketches of unrelated files: directions without preference."""
    values = random.standard_normal((STORED - CANDIDATES, DIMS))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    head = like[: SIZE_BYTES - 2 * DIMS]
    return b"".join(head + row.tobytes() for row in values.astype("<f2"))


def _row(what: str, figure: str, aim: str = "") -> None:
    print(f"{what:64} {figure:>16} {aim:>10}", flush=True)


def _measured(fd: int) -> tuple[bytes, dict[str, float]]:
    """Return the sketch of a file and the norms of its modules."""
    sketcher, energies = Sketcher(), {}
    for update in _updates(Opened(fd, SAFETENSORS)):
        sketcher.add(update)
        energies[update.path] = squared_norm(update)
    return sketcher.finish(sum(energies.values()) ** 0.5), {
        path: energy**0.5 for path, energy in energies.items()
    }


def _sketching(fd: int, rank: int) -> None:
    opened = Opened(fd, SAFETENSORS)

    def read() -> None:
        for update in _updates(opened):
            assert update.up.size

    def read_and_sketch() -> None:
        sketcher = Sketcher()
        for update in _updates(opened):
            projection = Projection(update.path, (update.up.shape[0], update.down.shape[1]))
            projection.add_up(0, update.up)
            projection.add_down(0, update.down.T)
            sketcher.join(projection, 1.0)

    extra = _timed(read_and_sketch) - _timed(read)
    _row(f"sketching adds to reading SDXL rank {rank}, 722 modules", f"{extra:.3f} s", "<= 0.15 s")


def _comparing(folder: Path, rank: int) -> None:
    with ExitStack() as stack:
        fds = [
            stack.enter_context(path.open("rb")).fileno()
            for path in sorted(folder.glob(f"{rank}_*"))
        ]
        _sketching(fds[0], rank)
        known = [_measured(fd) for fd in fds]
        own, norms = Compared(fds[0], SAFETENSORS, known[0][0]), known[0][1]
        at = [1 + number % (len(fds) - 1) for number in range(CANDIDATES)]
        others = [Compared(fds[which], SAFETENSORS, known[which][0]) for which in at]
        bundle = _strangers(np.random.default_rng(0), own.sketch)
        bundle += b"".join(other.sketch for other in others)
        search = _timed(lambda: nearest(own.sketch, bundle, CANDIDATES))
        found = {each.position for each in nearest(own.sketch, bundle, CANDIDATES)}
        assert found == set(range(STORED - CANDIDATES, STORED))
        _row(f"{CANDIDATES} nearest of {STORED:,} sketches", f"{search:.3f} s", "< 0.1 s")
        compared = compare(own, norms, others, _silent)
        spent = _timed(lambda: compare(own, norms, others, _silent))
        exact = sum(isinstance(each, Comparison) and not each.error for each in compared)
        _row(f"comparing with {CANDIDATES} of rank {rank}, {exact} exactly", f"{spent:.2f} s")
        _row(f"search and comparison, rank {rank}", f"{search + spent:.2f} s", "< 2 s")
        alone = _timed(lambda: compare(own, norms, others[:1], _silent))
        _row("the same with one candidate", f"{alone:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    _row(
        f"peak memory so far, the {len(bundle) / MIB:.0f} MiB of sketches included",
        f"{peak:.0f} MiB",
    )


def _silent(share: float, stage: str) -> None:
    del share, stage


def main() -> None:
    """Write the files and have a fresh process of one thread measure; print its rows."""
    if len(sys.argv) > 1:
        for rank in RANKS:
            _comparing(Path(sys.argv[1]), rank)
        return
    tuned = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    environment = {key: value for key, value in os.environ.items() if key not in tuned}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    with measuring.folder(ROOM) as folder:
        for rank in RANKS:
            for number in range(DISTINCT):
                noise = 0.15 * number
                _write(folder / f"{rank}_{number}.safetensors", rank, noise, seed=number)
        command = [sys.executable, "-m", "benchmarks.evaluation_neighbours", str(folder)]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
