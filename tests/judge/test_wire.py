"""Claims about the frames between pool and child."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_server.judge import wire

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(SCALARS, st.lists(SCALARS, max_size=2))),
)
LARGE: dict[str, Any] = {
    "text": 'a"\\é🦙' * 300_000,
    "many": {str(at): at for at in range(5_000)},
    "long": {"short": "s", "before": "x" * 900_000, "after": "y" * 900_000, "list": [1]},
    "list": [{"at": at} for at in range(5_000)],
    "none": None,
    "empty": [{}, [], ""],
}


def received(frames: list[bytes]) -> dict[str, Any]:
    """Put frames together as the pool does."""
    answer: dict[str, Any] = {}
    for frame in frames[:-1]:
        prefix, body = frame[: wire.LENGTH.size], frame[wire.LENGTH.size :]
        assert wire.frame_length(prefix) == len(body)
        wire.merge(answer, wire.message(body))
    assert frames[-1] == wire.END
    return answer


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=3), VALUES))
def test_an_answer_arrives_as_it_was_sent(answer: dict[str, Any]) -> None:
    """Frames put together again give the answer."""
    assert received(list(wire.answer_frames(answer))) == answer


def test_a_large_answer_goes_in_small_frames() -> None:
    """No frame takes the event loop long, and nothing is lost between them."""
    frames = list(wire.answer_frames(LARGE))

    assert received(frames) == LARGE
    assert max(map(len, frames)) < 1_300_000


def test_a_frame_has_a_limit() -> None:
    """Neither side sends or awaits more than a frame may hold."""
    longest = "x" * (wire.MAX_FRAME_BYTES - len('{"a":""}'))
    prefix = wire.frame({"a": longest})[: wire.LENGTH.size]

    assert wire.frame_length(prefix) == wire.MAX_FRAME_BYTES
    with pytest.raises(wire.Malformed):
        wire.frame({"a": longest + "x"})
    with pytest.raises(wire.Malformed):
        wire.frame_length(wire.LENGTH.pack(wire.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b'"a"', b"[" * 100_000])
def test_nonsense_is_no_message(body: bytes) -> None:
    """A body that is no JSON object is malformed."""
    with pytest.raises(wire.Malformed):
        wire.message(body)


@pytest.mark.parametrize("part", [{"a": "b"}, {"a": {}}, {"a": [1]}, {"a": 1}])
def test_a_part_continues_its_like(part: dict[str, Any]) -> None:
    """A number is never continued, whatever comes for it."""
    with pytest.raises(wire.Malformed):
        wire.merge(json.loads('{"a":7}'), part)
