"""One file beside a few others: the exact cosine, and how far leading subspaces overlap.

A pair of SDXL files of rank 64 takes almost half a second to compare number by number. So exact
are only those that may be SIMILAR by their sketches, the nearest first, as long as WORK lasts,
and the nearest in any case. The others keep the estimate of the sketches. Its error goes to 0
towards a cosine of 1: in files of hundreds of modules it is below 0.005 at 0.95 and below 0.0001
at 0.999, so that the kind of neighbour hardly ever hangs on it.

Subspaces are compared on SAMPLE modules, drawn in proportion to their energy at equal steps along
the file, so that their plain mean is the mean weighted by energy. One module of this file and one
of another are held at a time, and of each other file the latest that is cut into pieces.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lora_server.errors import FileRefused
from lora_server.evaluation.comparison import SIMILAR, Comparison, Skipped
from lora_server.evaluation.weights.opening import Compared, Opened
from lora_server.evaluation.weights.sketches import Estimate, frobenius, is_current, nearest
from lora_server.evaluation.weights.subspaces import Leading, Overlap, inner, leading, overlap
from lora_server.evaluation.weights.update import Update

Progress = Callable[[float, str], None]

MOST_OTHERS = 17  # sixteen candidates, and one that was asked for
SAMPLE = 8
SURE = 4.0  # standard errors within which a sketch is believed
# Reading and multiplying, in multiplications: a pair of SDXL files of rank 64 takes 16e9, one of
# rank 64 and one of rank 16 a quarter of that. With all else it stays below 2 s.
WORK = 30e9
_READING = 45  # multiplications that take as long as reading one number

# What a file that was replaced, cut off or damaged after it had been let in can lead to.
_BROKEN = (FileRefused, OSError, ValueError, ArithmeticError, MemoryError)
_NONE = Overlap(0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True)
class _Other:
    """Another file on its way to a comparison."""

    opened: Opened
    norm: float
    estimate: Estimate
    shared: int = 0
    work: float = 0.0
    product: float | None = None  # sum <dW1, dW2> where it is taken
    overlap: Overlap = _NONE


@dataclass(slots=True)
class _Others:
    """All other files: those still in, and why the rest is out, by position."""

    present: dict[int, _Other] = field(default_factory=dict)
    skipped: dict[int, Skipped] = field(default_factory=dict)

    def each(self, wanted: Callable[[_Other], bool], act: Callable[[_Other], None]) -> None:
        """Do something with each that is wanted; who breaks is out, with the reason."""
        for position, other in tuple(self.present.items()):
            if not wanted(other):
                continue
            try:
                act(other)
            except _BROKEN as error:
                self.drop(position, error)

    def drop(self, position: int, error: Exception) -> None:
        """Leave one out from here on."""
        self.present.pop(position, None)
        self.skipped[position] = Skipped(str(error) or type(error).__name__)


def compare(
    own: Compared,
    norms: Mapping[str, float],
    others: Sequence[Compared],
    progress: Progress,
) -> tuple[Comparison | Skipped, ...]:
    """Compare a file with at most MOST_OTHERS others, and return one answer for each.

    Args:
        own: the file, with its sketch.
        norms: the Frobenius norm of each of its modules by path, as far as known.
        others: what to compare it with; who cannot be read is skipped.
        progress: told the share done, 0 to 1, and what is being done.

    Raises:
        FileRefused: `own` cannot be read any more.
        OSError: likewise.
        ValueError: `own` has no sketch of this version, or there are too many others.
    """
    if len(others) > MOST_OTHERS:
        raise ValueError(f"at most {MOST_OTHERS} files can be compared with, not {len(others)}")
    norm = frobenius(own.sketch)
    progress(0.0, "opening what to compare with")
    subject = Opened(own.fd, own.extension)
    found = _Others()
    for position, file in enumerate(others):
        try:
            found.present[position] = _opened(own, file)
        except _BROKEN as error:
            found.drop(position, error)
    progress(0.1, "comparing subspaces")
    _compare_subspaces(subject, norms, found)
    progress(0.4, "comparing weights")
    _choose(subject, found)
    _multiply(subject, found, lambda share: progress(0.4 + 0.6 * share, "comparing weights"))
    progress(1.0, "compared")
    results: dict[int, Comparison | Skipped] = {**found.skipped}
    for position, other in found.present.items():
        results[position] = _comparison(other, norm)
    return tuple(results[position] for position in range(len(others)))


def _opened(own: Compared, file: Compared) -> _Other:
    opened = Opened(file.fd, file.extension)
    sketched = file.sketch if is_current(file.sketch) else opened.sketch()
    estimates = nearest(own.sketch, sketched, 1)
    if not estimates:
        raise ValueError("an update of zero, or one that is not finite, is near to nothing")
    return _Other(opened, frobenius(sketched), estimates[0])


def _comparison(other: _Other, norm: float) -> Comparison | Skipped:
    cosine, error = other.estimate.cosine, other.estimate.error
    if other.product is not None:
        cosine, error = other.product / norm / other.norm, 0.0
    if not math.isfinite(cosine):
        return Skipped("its weights are not finite")
    return Comparison(
        cosine=max(-1.0, min(1.0, cosine)),
        error=error,
        strength=other.norm / norm,
        shared_modules=other.shared,
        overlap=other.overlap.output,
        expected_overlap=other.overlap.expected_output,
        input_overlap=other.overlap.input,
        expected_input_overlap=other.overlap.expected_input,
    )


def sample(norms: Mapping[str, float], paths: Sequence[str], count: int) -> dict[str, float]:
    """Return modules drawn at equal steps of energy, with the share that each stands for.

    The shares add up to 1; where nothing has energy nothing is drawn.
    """
    energies = np.array([norms.get(path, 0.0) for path in paths], np.float64)
    energies[~np.isfinite(energies)] = 0.0
    largest = energies.max(initial=0.0)
    if not largest:
        return {}
    energies = (energies / largest) ** 2
    if len(paths) <= count:
        return dict(zip(paths, (energies / energies.sum()).tolist(), strict=True))
    ends = np.cumsum(energies)
    at = np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1])
    drawn: dict[str, float] = {}
    for index in np.minimum(at, len(paths) - 1).tolist():
        drawn[paths[index]] = drawn.get(paths[index], 0.0) + 1 / count
    return drawn


def _compare_subspaces(subject: Opened, norms: Mapping[str, float], others: _Others) -> None:
    for path, share in sample(norms, tuple(subject.modules), SAMPLE).items():
        cut = [(piece, leading(piece)) for piece in _pieces(subject, path)]
        energy = sum(lead.energy for _, lead in cut if lead is not None)
        for piece, lead in cut:
            if lead is not None:
                weight = share * lead.energy / energy
                others.each(_any, _adding_overlap(piece, lead, weight))


def _any(_: _Other) -> bool:
    return True


def _adding_overlap(piece: Update, lead: Leading, weight: float) -> Callable[[_Other], None]:
    def add(other: _Other) -> None:
        theirs = _same_shape(piece, other.opened)
        directions = None if theirs is None else leading(theirs)
        if theirs is None or directions is None:
            return
        more = overlap(piece, lead, theirs, directions)
        sums = (had + weight * new for had, new in zip(other.overlap, more, strict=True))
        other.overlap = Overlap(*sums)

    return add


def _choose(subject: Opened, others: _Others) -> None:
    """Count what is shared, and decide who is compared number by number."""
    keys = {path: set(subject.keys(path)) for path in subject.modules}
    ranks = [module.geometry.rank or 0 for module in subject.modules.values()]
    rank = sum(ranks) / max(len(ranks), 1)
    for other in others.present.values():
        both = {path: {key for key in own if key in other.opened} for path, own in keys.items()}
        other.shared = sum(map(bool, both.values()))
        numbers = other.opened.elements({key for shared in both.values() for key in shared})
        other.work = numbers * (rank + _READING)
    left = WORK
    near = sorted(others.present.values(), key=lambda other: -other.estimate.cosine)
    for number, other in enumerate(filter(_may_be_similar, near)):
        left -= other.work
        if number and left < 0:
            break
        other.product = 0.0


def _may_be_similar(other: _Other) -> bool:
    return other.estimate.cosine + SURE * other.estimate.error >= SIMILAR


def _multiply(subject: Opened, others: _Others, progress: Callable[[float], None]) -> None:
    def is_exact(other: _Other) -> bool:
        return other.product is not None

    total = len(subject.modules)
    for number, path in enumerate(subject.modules):
        if not any(map(is_exact, others.present.values())):
            return
        if number % 64 == 0:
            progress(number / total)
        for piece in _pieces(subject, path):
            others.each(is_exact, _adding_product(piece))


def _adding_product(piece: Update) -> Callable[[_Other], None]:
    def add(other: _Other) -> None:
        theirs = _same_shape(piece, other.opened)
        if theirs is not None and other.product is not None:
            with np.errstate(all="ignore"):  # what is not finite is said in the end
                other.product += inner(piece, theirs)

    return add


def _pieces(subject: Opened, path: str) -> Iterator[Update]:
    pieces = map(subject.piece, subject.keys(path))
    return (piece for piece in pieces if piece is not None)


def _same_shape(piece: Update, other: Opened) -> Update | None:
    # A module that cannot fit may take minutes to build, in every comparison with its file.
    fits = other.rows(piece.path) == piece.up.shape[0]
    theirs = other.piece(piece.path) if fits else None
    if theirs is None:
        return None
    ours = piece.up.shape[0], piece.down.shape[1]
    return theirs if ours == (theirs.up.shape[0], theirs.down.shape[1]) else None
