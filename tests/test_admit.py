"""The decision on the head of an upload, as tables."""

import pytest

from lora_server.errors import (
    LoraServerError,
    MalformedUpload,
    StorageFull,
    TooManyUploads,
    UnsupportedUpload,
    UploadTooLarge,
)
from lora_server.web.admission import Head, Room, UploadSlots, admit
from lora_server.web.uploads import FRAMING_BYTES

FORM = "multipart/form-data; boundary="
ROOM = Room(max_file_bytes=1000, free=FRAMING_BYTES * 2, promised=0, reserve=100)
CAP = 1000 + FRAMING_BYTES


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        pytest.param(FORM + "abc", "abc", id="plain"),
        pytest.param(FORM + '"a b:c"', "a b:c", id="quoted"),
        pytest.param(FORM + "----=_Part/1?", "----=_Part/1?", id="odd"),
        pytest.param(FORM + "x" * 70, "x" * 70, id="longest"),
        pytest.param("Multipart/Form-Data;Boundary=abc; charset=utf-8", "abc", id="case"),
    ],
)
def test_a_good_head_gives_its_boundary(content_type: str, boundary: str) -> None:
    """What clients send as a boundary is understood."""
    assert admit(Head(content_type, "", 500), ROOM) == boundary


@pytest.mark.parametrize(
    ("head_", "error"),
    [
        pytest.param(Head("", "", 5), UnsupportedUpload, id="no-type"),
        pytest.param(Head("application/octet-stream", "", 5), UnsupportedUpload, id="raw"),
        pytest.param(Head("multipart/mixed; boundary=a", "", 5), UnsupportedUpload, id="mixed"),
        pytest.param(Head("multipart/form-data-x; boundary=a", "", 5), UnsupportedUpload, id="x"),
        pytest.param(Head(FORM + "a", "gzip", 5), UnsupportedUpload, id="gzip"),
        pytest.param(Head(FORM + "a", "identity, gzip", 5), UnsupportedUpload, id="two-codings"),
        pytest.param(Head("multipart/form-data", "", 5), MalformedUpload, id="no-boundary"),
        pytest.param(Head(FORM, "", 5), MalformedUpload, id="empty"),
        pytest.param(Head(FORM + "a; boundary=b", "", 5), MalformedUpload, id="double"),
        pytest.param(Head(FORM + "x" * 71, "", 5), MalformedUpload, id="71"),
        pytest.param(Head(FORM + "a b", "", 5), MalformedUpload, id="unquoted-space"),
        pytest.param(Head(FORM + '"a ', "", 5), MalformedUpload, id="unclosed"),
        pytest.param(Head(FORM + '"a "', "", 5), MalformedUpload, id="ends-in-space"),
        pytest.param(Head(FORM + 'a"b', "", 5), MalformedUpload, id="stray-quote"),
        pytest.param(Head(FORM + "ä", "", 5), MalformedUpload, id="not-ascii"),
        pytest.param(Head(FORM + "a", "", CAP + 1), UploadTooLarge, id="too-large"),
        pytest.param(Head(FORM + "a", "", 10**30), UploadTooLarge, id="absurd"),
    ],
)
def test_a_bad_head_is_refused(head_: Head, error: type[LoraServerError]) -> None:
    """Each rule of the head has its own refusal."""
    with pytest.raises(error):
        admit(head_, ROOM)


@pytest.mark.parametrize(
    ("free", "promised", "length", "fits"),
    [
        pytest.param(600, 0, 500, True, id="just"),
        pytest.param(599, 0, 500, False, id="one-less"),
        pytest.param(1100, 500, 500, True, id="beside-another"),
        pytest.param(1099, 500, 500, False, id="promised-to-another"),
        pytest.param(1100, 0, None, True, id="chunked"),
        pytest.param(1099, 0, None, False, id="chunked-may-be-largest"),
    ],
)
def test_the_reserve_is_kept(free: int, promised: int, length: int | None, *, fits: bool) -> None:
    """What other uploads may still write counts, and so does a length that nobody told."""
    room = Room(max_file_bytes=1000, free=free, promised=promised, reserve=100)
    if fits:
        assert admit(Head(FORM + "a", "", length), room) == "a"
    else:
        with pytest.raises(StorageFull):
            admit(Head(FORM + "a", "", length), room)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("junk", [";", "; ", "; a", ';a="', ';a="\\', "; a=b", ' ;a="b"c'])
def test_no_header_is_slow_to_read(junk: str) -> None:
    """A header of the largest size is judged in no time, whatever it is made of."""
    with pytest.raises(LoraServerError):
        admit(Head("multipart/form-data" + junk * (8000 // len(junk)), "", 5), ROOM)


def test_a_slot_is_free_again_however_it_ended() -> None:
    """Slots count per principal and in all, and so do the bytes promised to them."""
    slots = UploadSlots(total=2, per_principal=1)
    with slots.taken("ann", 10), pytest.raises(TooManyUploads) as mine, slots.taken("ann", 10):
        pytest.fail("a second slot for ann")
    with slots.taken("ann", 10), slots.taken("bob", 5):
        promised = slots.promised
        with pytest.raises(TooManyUploads) as all_, slots.taken("cid", 10):
            pytest.fail("a third slot")
    with pytest.raises(KeyError), slots.taken("ann", 10):
        raise KeyError

    assert (mine.value.of_principal, all_.value.of_principal) == (True, False)
    assert (promised, slots.promised) == (15, 0)
    with slots.taken("ann", 10):
        assert slots.promised == 10


def test_what_is_written_is_promised_no_longer() -> None:
    """It is missing from the free space already; a slot gives back what it holds, and no more."""
    slots = UploadSlots(total=2, per_principal=2)
    with slots.taken("ann", 10) as slot, slots.taken("ann", 5):
        slot.written(4)
        partly = slots.promised
        slot.written(7)
        wholly = slots.promised

    assert (partly, wholly, slots.promised) == (11, 5, 0)
