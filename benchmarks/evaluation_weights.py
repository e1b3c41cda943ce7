"""What it costs to measure a LoRA by its weights, on one thread, reading included.

Beside it the methods of kohya's scripts, written anew on numpy: the mean and the smallest
magnitude of the raw factors (what its check prints), and the spectrum of the multiplied update
(what its resizing does; where both widths exceed 2048 by a randomised decomposition). The latter
is timed on one module of each shape and counted for all. Each figure is of a process of its own.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks import measuring
from lora_server.evaluation.weights.composing import Halves
from lora_server.evaluation.weights.evaluating import evaluate
from lora_server.evaluation.weights.solving import core_of
from lora_server.evaluation.weights.spectra import Core, solve
from lora_server.evaluation.weights.updates import updates
from lora_server.judge.reading import whole_table
from tests.adapters import Named, adapter_tensors, lora_tensors, placed, safetensors_header
from tests.layers import Layer, stack

RANK = 64
PASSES = 5
ROOM = 2 << 30
MIB = 2**20
WIDE = 2048  # kohya's bound for the randomised decomposition
EXTENSION = ".safetensors"

Array = npt.NDArray[np.float32]


def _flux() -> Iterator[Layer]:
    """Yield the 418 linear layers of Flux's blocks in diffusers' names."""
    width, wide = 3072, 12288
    square = [f"attn.{n}" for n in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")]
    square += [f"attn.add_{n}_proj" for n in "qkv"]
    both = {f"{ff}.net.{n}": s for ff in ("ff", "ff_context") for n, s in _FF.items()}
    yield from stack("transformer_blocks", 19, {**dict.fromkeys(square, (width, width)), **both})
    alone = {f"attn.to_{n}": (width, width) for n in "qkv"}
    alone |= {"proj_mlp": (width, wide), "proj_out": (width + wide, width)}
    yield from stack("single_transformer_blocks", 38, alone)


_FF = {"0.proj": (3072, 12288), "2": (12288, 3072)}


def _files() -> Mapping[str, list[Named]]:
    return {
        "SDXL": adapter_tensors("sdxl", rank=RANK, dtype="BF16"),
        "SDXL, fp16": adapter_tensors("sdxl", rank=RANK, dtype="F16"),
        "Flux": lora_tensors(_flux(), style="diffusers", rank=RANK, dtype="BF16"),
    }


def _write(path: Path, tensors: list[Named], *, falling: bool) -> None:
    """Write normal factors; `falling` rows of each down half shrink to a thousandth."""
    random = np.random.default_rng(0)
    ordered = placed(tensors)
    with path.open("wb") as file:
        file.write(safetensors_header(ordered, {}))
        for tensor in ordered:
            values = random.standard_normal(tensor.shape, np.float32) * np.float32(0.02)
            if tensor.name.endswith(".alpha"):
                values = np.full((), RANK, np.float32)
            elif falling and tensor.shape[0] == RANK:
                values *= np.geomspace(1, 1e-3, RANK, dtype=np.float32)[:, None]
            file.write(_encoded(values, tensor.dtype))


def _encoded(values: Array, dtype: str) -> bytes:
    if dtype == "F16":
        return values.astype(np.float16).tobytes()
    return (np.atleast_1d(values).view(np.uint32) >> 16).astype("<u2").tobytes()


def _evaluated(fd: int) -> int:
    return evaluate(fd, EXTENSION, _silent).measure.module_count


def _raw_factors(fd: int) -> int:
    """Print nothing of it: the mean and the least magnitude of every tensor."""
    count = 0
    for update in updates(fd, whole_table(fd, EXTENSION)):
        for half in (update.up, update.down):
            magnitudes = np.abs(half)
            assert magnitudes.mean() >= magnitudes.min()
        count += 1
    return count


def _multiplied(up: Array, down: Array) -> Array:
    """Return the singular values that kohya's resizing has, up to those that it keeps."""
    product = up @ down
    if min(product.shape) <= WIDE:
        return np.asarray(np.linalg.svd(product, compute_uv=False)[:RANK], np.float32)
    random = np.random.default_rng(0)
    basis = random.standard_normal((product.shape[1], 2 * RANK), np.float32)
    for _ in range(2):
        basis = np.linalg.qr(product.T @ np.linalg.qr(product @ basis)[0])[0]
    basis = np.linalg.qr(product @ basis)[0]
    return np.asarray(np.linalg.svd(basis.T @ product, compute_uv=False)[:RANK], np.float32)


def _from_gram(up: Array, down: Array) -> Array:
    halves = Halves(lambda: iter((up,)), lambda: iter((down.T,)), RANK, frozenset())
    core = core_of(halves, 1.0)
    assert isinstance(core, Core)
    spectrum, _ = solve([core])[0]
    return np.asarray(spectrum.values * spectrum.unit, np.float32)


def _side_by_side(fd: int) -> None:
    """Print both routes to the spectrum, for one module of each shape."""
    first: dict[tuple[int, int], tuple[Array, Array]] = {}
    shapes: Counter[tuple[int, int]] = Counter()
    for update in updates(fd, whole_table(fd, EXTENSION)):
        shape = (update.up.shape[0], update.down.shape[1])
        first.setdefault(shape, (update.up, update.down))
        shapes[shape] += 1
    totals = [0.0, 0.0]
    for shape, (up, down) in sorted(first.items()):
        gram_s, fast = _timed(partial(_from_gram, up, down), 5)
        full_s, slow = _timed(partial(_multiplied, up, down), 1)
        exact = np.linalg.svd(_triangles(up, down), compute_uv=False)
        errors = [float(np.abs(found - exact).max() / exact[0]) for found in (fast, slow)]
        totals[0] += gram_s * shapes[shape]
        totals[1] += full_s * shapes[shape]
        _row(
            f"{shape[0]} x {shape[1]}, {shapes[shape]} modules",
            f"{gram_s * 1e3:.2f} ms, {errors[0]:.0e}",
            f"{full_s * 1e3:.0f} ms, {errors[1]:.0e}",
        )
    _row("all of them", f"{totals[0]:.2f} s", f"{totals[1]:.0f} s")


def _triangles(up: Array, down: Array) -> npt.NDArray[np.float64]:
    left, right = (
        np.asarray(np.linalg.qr(half.astype(np.float64), mode="r")) for half in (up, down.T)
    )
    return np.asarray(left @ right.T, np.float64)


def _timed(act: Callable[[], Array], passes: int) -> tuple[float, Array]:
    taken = []
    for _ in range(passes):
        begun = time.process_time()
        found = act()
        taken.append(time.process_time() - begun)
    return median(taken), found


MEASUREMENTS: Mapping[str, Callable[[int], int]] = {
    "evaluated": _evaluated,
    "raw factors": _raw_factors,
}


def _child(what: str, path: str) -> None:
    """Do one measurement and print what it took."""
    fd = os.open(path, os.O_RDONLY)
    if what == "side by side":
        _side_by_side(fd)
        return
    clocks = time.perf_counter(), time.process_time()
    count = MEASUREMENTS[what](fd)
    taken = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    print(json.dumps([count, *taken, peak]))


def _run(what: str, path: Path) -> str:
    tuned = {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}
    environment = {key: value for key, value in os.environ.items() if key not in tuned}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "benchmarks.evaluation_weights", what, str(path)]
    return subprocess.run(
        command, check=True, env=environment, capture_output=True, text=True
    ).stdout


def _measure(what: str, label: str, path: Path, aim: str = "") -> None:
    runs = [json.loads(_run(what, path)) for _ in range(PASSES)]
    count, wall, cpu, peak = (median(column) for column in zip(*runs, strict=True))
    size = path.stat().st_size / 1e6
    _row(
        f"{label}: {count} modules, {size:.0f} MB {aim}",
        f"{cpu:.2f} s CPU, {wall:.2f} s",
        f"peak {peak:.0f} MiB",
    )


def _row(what: str, first: str, second: str) -> None:
    print(f"{what:58} {first:>24} {second:>20}", flush=True)


def _silent(share: float, stage: str) -> None:
    del share, stage


def main() -> None:
    """Write the files, then measure each in processes of their own."""
    if len(sys.argv) > 1:
        _child(*sys.argv[1:])
        return
    aims = {"SDXL": "(< 1.0 s)", "Flux": "(< 1.5 s)"}
    with measuring.folder(ROOM) as folder:
        path = folder / "lora.safetensors"
        for label, tensors in _files().items():
            for falling in (False, True):
                _write(path, tensors, falling=falling)
                spelled = f"{label}, falling spectra" if falling else label
                _measure("evaluated", spelled, path, aims.get(label, ""))
            _measure("raw factors", f"{label}, magnitudes of raw factors", path)
            if label != "SDXL, fp16":
                print(_run("side by side", path), end="", flush=True)


if __name__ == "__main__":
    main()
