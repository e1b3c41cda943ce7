"""A file's update in two kilobytes, so that thousands can be searched by cosine.

A sketch is linear in the update. Each piece of dW becomes D o (P up)(down Q), where P is (16, m)
and Q (n, 16) of random signs and D has 16 x 16 of them; it is added to one of four blocks. The
piece's name and shape tell the signs and the block. As E[P'P] = 16 I, the inner product of two
sketches over 256 has the expectation sum <dW1, dW2> over the pieces of both; pieces that are not
the same add noise of mean 0, and only where they fall into one block. B·A is never formed, and
the factors' gauge and rank do not matter.

The estimate of a cosine c, by the cosine of two sketches, has a standard error of at most about
(1 - c²) sqrt(1/1024 + (4/16) / M), M being the geometric mean of the two files' effective numbers
of pieces. The second term is the worst case, modules of rank one that share all of one side; the
first alone, 0.031, is what unrelated files of many modules show. Among 5,000 of those the
sixteenth best is by chance at about 2.7 x 0.031 = 0.085, so that a neighbour at 0.3 leaves the
first sixteen only when it is off by 0.2: 4 standard errors of the worst case at 100 modules, 7 of
the usual one. A file with a handful of modules has no such promise; its duplicates do, for the
error goes to 0 where c goes to 1.

Signs come from SHAKE-256, so they are the same in every process and with every version of numpy.
Sums are in the order of the linear algebra library: two machines may differ in a last bit.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.canonical import Piece, pieces
from lora_server.evaluation.weights.sketch_head import HEAD, MAGIC
from lora_server.evaluation.weights.update import Matrix, Update

VERSION = 1
SIDE = 16  # of a piece's own sketch; the cost of sketching grows with it
BLOCKS = 4  # pieces in different blocks do not disturb each other, and blocks cost nothing
DIMS = BLOCKS * SIDE * SIDE
_VALUES = np.dtype("<f2")
SIZE_BYTES = HEAD.size + DIMS * _VALUES.itemsize

_SIGN_ROWS = 1 << 16
_STRETCH_ROWS = _SIGN_ROWS // 2  # rows of a factor that one window of the signs serves
_SIGN_SEED = b"lora_server sketch 1"
_SIGN_BYTES = SIDE * SIDE // 8
_OFFSET_BYTES = 4


class Estimate(NamedTuple):
    """A stored sketch: where in the bundle, from 0; the estimated cosine and its standard error."""

    position: int
    cosine: float
    error: float


class Projection:
    """One module on its way into a sketch: halves come in any order, some rows at a time."""

    def __init__(self, path: str, shape: tuple[int, int]) -> None:
        self._halves = [_Halves(piece, shape[1]) for piece in pieces(path, shape)]

    def add_up(self, begin: int, rows: Matrix) -> None:
        """Add rows of `up`, (k, r), the first of which is the module's row `begin`."""
        for halves in self._halves:
            first, last = halves.piece.begin, halves.piece.end
            part = rows[max(first - begin, 0) : max(last - begin, 0)]
            halves.left = _projected(part, max(begin - first, 0), halves.out_offsets, halves.left)

    def add_down(self, begin: int, rows: Matrix) -> None:
        """Add rows of the transpose of `down`, (k, r), the first of them row `begin`."""
        for halves in self._halves:
            halves.right = _projected(rows, begin, halves.in_offsets, halves.right)

    def products(self) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """Yield block and sketch of each piece, the scale of the module not yet in it."""
        for halves in self._halves:
            if halves.left is not None and halves.right is not None:
                with np.errstate(all="ignore"):  # what overflows is left out by the sketcher
                    yield halves.block, halves.signs * np.float64(halves.left.T @ halves.right)


class Sketcher:
    """Sketches one file, module by module."""

    def __init__(self) -> None:
        self._sum = np.zeros((BLOCKS, SIDE, SIDE))
        self._energies: list[float] = []

    def add(self, update: Update) -> None:
        """Add a whole module; a piece whose sketch is not finite counts as absent."""
        projection = Projection(update.path, (update.up.shape[0], update.down.shape[1]))
        projection.add_up(0, update.up)
        projection.add_down(0, update.down.T)
        self.join(projection, 1.0)

    def join(self, projection: Projection, scale: float) -> None:
        """Add a module whose dW is `scale` times what was projected."""
        for block, product in projection.products():
            with np.errstate(all="ignore"):
                scaled = scale * product
                energy = float(np.vdot(scaled, scaled))
            if np.isfinite(energy) and energy:
                self._sum[block] += scaled
                self._energies.append(energy)

    def finish(self, frobenius: float) -> bytes:
        """Return SIZE_BYTES bytes; `frobenius` is the norm of the file's whole update.

        An update of zero, or one without a finite norm, gives a sketch that is near to nothing.
        """
        length = float(np.linalg.norm(self._sum))
        usable = length > 0 and np.isfinite(length) and np.isfinite(frobenius) and frobenius > 0
        values = self._sum / length if usable else np.zeros_like(self._sum)
        norm, spread = (frobenius, self._spread()) if usable else (0.0, 0.0)
        head = HEAD.pack(MAGIC, VERSION, SIZE_BYTES, norm, spread)
        return head + values.astype(_VALUES).tobytes()

    def _spread(self) -> float:
        """Return the effective number of pieces: 1 where a single one has all the energy."""
        energies = np.array(self._energies) / max(self._energies)
        return float(energies.sum() ** 2 / (energies**2).sum())


def sketch(updates: Iterable[Update]) -> bytes:
    """Return the sketch of a whole file, its norm computed on the way."""
    sketcher, energy = Sketcher(), 0.0
    for update in updates:
        sketcher.add(update)
        energy += squared_norm(update)
    return sketcher.finish(energy**0.5)


def squared_norm(update: Update) -> float:
    """Return fro(dW)² = sum(B'B o AA'); NaN or infinite where the factors are."""
    with np.errstate(all="ignore"):
        up, down = update.up, update.down
        return float(np.vdot(np.float64(up.T @ up), np.float64(down @ down.T)))


def frobenius(sketched: bytes) -> float:
    """Return the norm of the file's update that a sketch of this version carries.

    Raises ValueError for anything else.
    """
    return _read(sketched)[0]


def is_current(sketched: bytes) -> bool:
    """Whether this is a sketch of this version."""
    expected = (MAGIC, VERSION, SIZE_BYTES)
    return len(sketched) == SIZE_BYTES and HEAD.unpack_from(sketched)[:3] == expected


def nearest(sketched: bytes, bundle: bytes, count: int) -> list[Estimate]:
    """Return the `count` sketches of a bundle with the largest estimated cosine, best first.

    `bundle` is stored sketches one after another. Those of another version, of a zero update or
    with values that are not finite are ignored, but keep their place in the numbering. Raises
    ValueError where `sketched` is not one sketch of this version or the bundle is torn.
    """
    norm, spread, query = _read(sketched)
    indices, bodies, heads = [], [], []
    for index, begin, size in _records(bundle):
        if size == SIZE_BYTES and bundle[begin : begin + 6] == sketched[:6]:
            indices.append(index)
            heads.append(HEAD.unpack_from(bundle, begin)[3:])
            bodies.append(bundle[begin + HEAD.size : begin + size])
    if not indices or not _is_usable(norm, spread) or not np.isfinite(query).all():
        return []
    norms, spreads = np.array(heads).T
    cosines = np.concatenate([_cosines(query, part) for part in _parted(bodies)])
    good = np.isfinite(cosines) & np.isfinite(norms) & (norms > 0) & (spreads >= 1)
    order = np.argsort(np.where(good, -cosines, np.inf), kind="stable")[: max(count, 0)]
    return [
        Estimate(indices[at], cosine := float(cosines[at]), _error(cosine, spread, spreads[at]))
        for at in order
        if good[at]
    ]


def _error(cosine: float, spread: float, other: float) -> float:
    variance = 1 / DIMS + 4 / SIDE / float(np.sqrt(spread * other))
    return float((1 - min(cosine * cosine, 1.0)) * np.sqrt(variance))


def _is_usable(norm: float, spread: float) -> bool:
    return 0 < norm < float("inf") and spread >= 1


def _read(sketched: bytes) -> tuple[float, float, npt.NDArray[np.float32]]:
    """Return norm, spread and values."""
    if not is_current(sketched):
        raise ValueError(f"not a sketch of version {VERSION}")
    *_, norm, spread = HEAD.unpack_from(sketched)
    return norm, spread, np.frombuffer(sketched, _VALUES, DIMS, HEAD.size).astype(np.float32)


def _records(bundle: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield number, offset and length of every record, whatever its version."""
    begin = index = 0
    while begin < len(bundle):
        if begin + HEAD.size > len(bundle):
            raise ValueError(f"the bundle ends inside sketch {index}")
        magic, _, size, *_ = HEAD.unpack_from(bundle, begin)
        if magic != MAGIC or not HEAD.size <= size <= len(bundle) - begin:
            raise ValueError(f"sketch {index} of the bundle is torn")
        yield index, begin, size
        begin += size
        index += 1


def _parted(bodies: list[bytes], most: int = 512) -> Iterator[list[bytes]]:
    """Yield stretches that fit a core's cache as float32."""
    return (bodies[at : at + most] for at in range(0, len(bodies), most))


def _cosines(query: Matrix, bodies: list[bytes]) -> npt.NDArray[np.float64]:
    values = np.frombuffer(b"".join(bodies), _VALUES).reshape(-1, DIMS).astype(np.float32)
    with np.errstate(all="ignore"):  # a stored NaN is no neighbour; the caller drops it
        lengths = np.sqrt(np.einsum("ij,ij->i", values, values))
        cosines = (values @ query) / (lengths * np.linalg.norm(query))
    return np.asarray(cosines, np.float64)


class _Halves:
    """A piece's projected halves, and what the hash of its name and shape tells."""

    def __init__(self, piece: Piece, columns: int) -> None:
        rows = piece.end - piece.begin
        stretches = 1 + max(rows, columns) // _STRETCH_ROWS
        seed = f"{VERSION}|{rows}|{columns}|{piece.key}".encode(errors="surrogatepass")
        raw = hashlib.shake_256(seed).digest(_SIGN_BYTES + _OFFSET_BYTES * (2 * stretches + 1))
        words = np.frombuffer(raw, "<u4", offset=_SIGN_BYTES).tolist()
        offsets = [word % (_SIGN_ROWS - _STRETCH_ROWS) for word in words[1:]]
        self.piece = piece
        self.signs = _signs_of(raw[:_SIGN_BYTES]).reshape(SIDE, SIDE)
        self.block = words[0] % BLOCKS
        self.out_offsets = offsets[:stretches]  # where the signs of each stretch of rows begin
        self.in_offsets = offsets[stretches:]
        self.left: Matrix | None = None
        self.right: Matrix | None = None


def _projected(rows: Matrix, begin: int, offsets: list[int], total: Matrix | None) -> Matrix | None:
    """Add the (r, SIDE) product of rows, (k, r), with their signs to what there is already."""
    signs, done = _signs(), 0
    while done < len(rows):
        number, inside = divmod(begin + done, _STRETCH_ROWS)
        part = rows[done : done + _STRETCH_ROWS - inside]
        offset = offsets[number] + inside
        with np.errstate(all="ignore"):  # what overflows is left out by the sketcher
            product = part.T @ signs[offset : offset + len(part)]
            total = product if total is None else total + product
        done += len(part)
    return total


def _signs_of(raw: bytes) -> Matrix:
    return np.unpackbits(np.frombuffer(raw, np.uint8)).astype(np.float32) * 2 - 1


@lru_cache(maxsize=1)
def _signs() -> Matrix:
    """Return the signs that all pieces share, each at offsets of its own: 4 MiB, made once."""
    # Fresh signs for every piece would cost more than the products with them.
    raw = hashlib.shake_256(_SIGN_SEED).digest(_SIGN_ROWS * SIDE // 8)
    return _signs_of(raw).reshape(_SIGN_ROWS, SIDE)
