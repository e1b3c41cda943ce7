"""Stored numbers become floats: every dtype that a container may declare.

float32 holds all of them exactly but F64 and wide integers, which become float64. Formats of 8
bits are looked up in tables: E4M3 and E5M2 as in the OCP specification of 8-bit floating point
(OFP8), their FNUZ variants as in LLVM's APFloat, E8M0 as in the OCP microscaling formats.
"""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

_PLAIN: Mapping[str, str] = {
    "BOOL": "?",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}
_WIDE = frozenset({"F64", "I32", "U32", "I64", "U64"})
FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"})
FLOATS = frozenset({"F16", "BF16", "F32", "F64", *FLOAT8})

_HALF_MAGNITUDE, _HALF_INFINITY = 0x7FFF, 0x7C00
_HALF_BITS = np.int32(0x0FFFE000 - 2**31)  # the sign, five bits of exponent, ten of fraction
_HALF_BIAS = np.float32(2.0**112)

# Elements that a block of work holds, so that it and its result stay in a core's own cache.
_STRIPE = 64 * 1024


def decode(raw: npt.NDArray[np.uint8], dtype: str, out: npt.NDArray[np.float32]) -> Floats:
    """Return the numbers in `raw`; in `out`, which is of that many, unless they are wide."""
    if dtype in _WIDE:
        return raw.view(_PLAIN[dtype]).astype(np.float64)
    if dtype == "F32":
        return raw.view(np.float32)
    convert = _CONVERTERS.get(dtype)
    if convert is None:
        out[:] = raw.view(_PLAIN[dtype])
    else:
        convert(raw, out)
    return out


def _bfloat16(raw: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
    # A bfloat16 is the upper half of a float32.
    bits = out.view(np.uint32)
    np.copyto(bits, raw.view("<u2"))
    np.left_shift(bits, 16, out=bits)


def _float16(raw: npt.NDArray[np.uint8], out: npt.NDArray[np.float32]) -> None:
    # numpy's own conversion goes number by number. Exponent and fraction are moved to where
    # float32 has them; the multiplication makes up for the different bias.
    codes = raw.view("<u2")
    for begin in range(0, codes.size, _STRIPE):
        stripe, target = codes[begin : begin + _STRIPE], out[begin : begin + _STRIPE]
        if int((stripe & _HALF_MAGNITUDE).max()) >= _HALF_INFINITY:
            _look_up(_half_table(), stripe, target)
            continue
        bits = target.view(np.int32)
        np.copyto(bits, stripe.view("<i2"))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _HALF_BITS, out=bits)
        np.multiply(target, _HALF_BIAS, out=target)


def _float8(dtype: str) -> Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], None]:
    return lambda raw, out: _look_up(_small_table(dtype), raw, out)


def _look_up(
    table: npt.NDArray[np.float32],
    codes: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    out: npt.NDArray[np.float32],
) -> None:
    # `take` makes eight bytes of each index first, so it is given a stripe at a time.
    for begin in range(0, codes.size, _STRIPE):
        stripe = slice(begin, begin + _STRIPE)
        np.take(table, codes[stripe], out=out[stripe], mode="clip")


_CONVERTERS: Mapping[str, Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float32]], None]] = {
    "BF16": _bfloat16,
    "F16": _float16,
    **{dtype: _float8(dtype) for dtype in FLOAT8},
}


@cache
def _half_table() -> npt.NDArray[np.float32]:
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@cache
def _small_table(dtype: str) -> npt.NDArray[np.float32]:
    codes = np.arange(256)
    if dtype == "F8_E8M0":
        powers = np.ldexp(1.0, codes - 127)
        powers[255] = np.nan
        return powers.astype(np.float32)
    fnuz = dtype.endswith("FNUZ")
    mantissa_bits = 3 if "E4M3" in dtype else 2
    bias = (7 if mantissa_bits == 3 else 15) + fnuz  # noqa: PLR2004 - OFP8's biases
    exponent = (codes & 0x7F) >> mantissa_bits
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(
        exponent == 0,
        np.ldexp(fraction, 1 - bias),
        np.ldexp(1 + fraction, exponent - bias),
    )
    values = np.where(codes & 0x80, -values, values)
    if fnuz:
        values[0x80] = np.nan
    elif mantissa_bits == 3:  # noqa: PLR2004 - E4M3 has no infinity
        values[[0x7F, 0xFF]] = np.nan
    else:
        values[[0x7C, 0xFC]] = [np.inf, -np.inf]
        values[[0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF]] = np.nan
    return values.astype(np.float32)
