"""Headers to be drawn: tables that tile a buffer, and what is put between their bytes."""

from typing import Any

from hypothesis import strategies as st

from lora_server.formats.tensors import DTYPE_BITS

TEXTS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["a", "", "\\", "__metadata__", "dtype", "\x00", "\ud800", "é", "shape"]),
)
SNIPPETS = st.sampled_from(
    [b"", b" ", b"0", b"1", b"-", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\xff", b"\x00"]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Draw entries that tile a buffer, and its size."""
    fields: dict[str, Any] = {}
    end = 0
    for name in draw(
        st.lists(TEXTS.filter(lambda n: n != "__metadata__"), max_size=4, unique=True)
    ):
        dtype = draw(st.sampled_from(sorted(DTYPE_BITS)))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        begin, count = end, 1
        for size in shape:
            count *= size
        end += count * DTYPE_BITS[dtype] // 8
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    if draw(st.booleans()):
        fields["__metadata__"] = draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
    return fields, end


@st.composite
def mutated(draw: st.DrawFn, header: bytes) -> bytes:
    """Draw a header like this one with some bytes exchanged."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(header)))
        header = header[:at] + draw(SNIPPETS) + header[at + draw(st.integers(0, 2)) :]
    return header
