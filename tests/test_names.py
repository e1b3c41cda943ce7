"""Stored names, versions, keys and partial paths."""

import itertools
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_server.errors import FieldInvalid, UnsupportedUpload
from lora_server.names import (
    EXTENSIONS,
    client_filename,
    first_free,
    is_plain,
    key,
    parse_partial_path,
    stored_name,
    versions,
)
from lora_server.records import Filename, Place

TYPES = ("styles", "faces")
# Letters alone would hardly ever meet what names are made of to do harm.
HOSTILE = st.sampled_from(
    ' .:/\\*?"<>|\0\n\u200d\u202e\u0301\ud800eCONaux_v2\u00e9\U0001f58c\u3042'
)
STEMS = st.text(HOSTILE | st.characters(), max_size=300)


@pytest.mark.parametrize(
    ("filename", "stored"),
    [
        pytest.param("ink.safetensors", "ink.safetensors", id="plain"),
        pytest.param("C:\\loras\\ink.pt", "ink.pt", id="windows path"),
        pytest.param("../../etc/ink.pt", "ink.pt", id="traversal"),
        pytest.param("Ink.SafeTensors", "Ink.safetensors", id="extension in lower case"),
        pytest.param("..ink.pt", "ink.pt", id="leading dots"),
        pytest.param("ink. .pt", "ink.pt", id="trailing dots and spaces"),
        pytest.param("ink.pt. ", "ink.pt", id="behind the extension"),
        pytest.param('a<b>c:d"e|f?g*h.pt', "abcdefgh.pt", id="reserved characters"),
        pytest.param("a\x00b\nc\x7f.pt", "abc.pt", id="controls"),
        pytest.param("a\u202etp.b.pt", "atp.b.pt", id="bidi override"),
        pytest.param("CON.pt", "CON_.pt", id="device name"),
        pytest.param("墨水.safetensors", "墨水.safetensors", id="han"),
        pytest.param("e\u0301.pt", "\u00e9.pt", id="decomposed"),
        pytest.param("e\u200d\u0301.pt", "\u00e9.pt", id="composes once the joiner is gone"),
        pytest.param("e:\u0301.pt", "\u00e9.pt", id="composes once the colon is gone"),
        pytest.param("ink.tar.bin", "ink.tar.bin", id="two dots"),
    ],
)
def test_stored_names(filename: str, stored: str) -> None:
    """A client's name is stored as people would expect to read it."""
    assert stored_name(filename) == stored


@pytest.mark.parametrize("filename", ["ink", "ink.exe", "", "safetensors", "ink.pt.exe", "a/b.pt/"])
def test_other_extensions_are_not_taken(filename: str) -> None:
    """Only the known extensions come in."""
    with pytest.raises(UnsupportedUpload, match=r"\.safetensors"):
        stored_name(filename)


@pytest.mark.parametrize("filename", [".pt", "...pt", " .pt", "?.pt", "\u200d.pt", "dir/.pt"])
def test_empty_names_are_refused(filename: str) -> None:
    """A name of which nothing is left is the client's mistake."""
    with pytest.raises(FieldInvalid) as refused:
        stored_name(filename)

    assert refused.value.complaints[0].loc == ("body", "file")


def test_long_names_are_cut_between_characters() -> None:
    """A cut leaves room for a version and never halves a character."""
    stored = stored_name("あ" * 200 + ".safetensors")

    assert stored == "あ" * 78 + ".safetensors"


@given(STEMS, st.sampled_from(EXTENSIONS))
@example("e\u200d\u0301", ".pt")
@example("CON :", ".pt")
@example("aux .x", ".pt")
def test_stored_names_are_safe(stem: str, extension: str) -> None:
    """Whatever a client sends, the stored name is plain, NFC, stable and fits its versions."""
    try:
        name = stored_name(stem + extension)
    except (FieldInvalid, UnsupportedUpload):
        return

    assert is_plain(name)
    assert unicodedata.is_normalized("NFC", name)
    assert stored_name(name) == name
    assert len(f"_v999999{name}".encode()) <= 255
    assert not set(name) & set('/\\:*?"<>|\0')
    assert parse_partial_path(f"styles/{name}", Place.MODELS, TYPES).name == name


@given(st.text())
def test_any_text_is_a_name_or_refused(filename: str) -> None:
    """No file name makes anything but a name or one of the two refusals."""
    try:
        assert is_plain(stored_name(filename))
    except (FieldInvalid, UnsupportedUpload):
        assert filename is not None


def test_client_filename_drops_the_directory() -> None:
    """Either slash ends a directory."""
    assert client_filename("a/b\\c.pt") == "c.pt"


@pytest.mark.parametrize(
    ("name", "series"),
    [
        pytest.param("ink.pt", ["ink.pt", "ink_v2.pt", "ink_v3.pt"], id="first of a series"),
        pytest.param("ink_v2.pt", ["ink_v2.pt", "ink_v2.pt", "ink_v3.pt"], id="goes on"),
        pytest.param("ink_v9.pt", ["ink_v9.pt", "ink_v2.pt", "ink_v3.pt"], id="fills gaps"),
        pytest.param("ink_v1.pt", ["ink_v1.pt", "ink_v1_v2.pt", "ink_v1_v3.pt"], id="v1 is none"),
        pytest.param("ink_v02.pt", ["ink_v02.pt", "ink_v02_v2.pt", "ink_v02_v3.pt"], id="padded"),
        pytest.param("_v2.pt", ["_v2.pt", "_v2_v2.pt", "_v2_v3.pt"], id="nothing before it"),
    ],
)
def test_series(name: str, series: list[str]) -> None:
    """A taken name goes on as _v2, _v3 and so on, and a version as its own series."""
    assert list(itertools.islice(versions(Filename(name)), 3)) == series


def test_first_free_takes_the_first_gap() -> None:
    """The lowest number that nobody holds is given."""
    assert first_free(Filename("ink.pt"), {"ink.pt", "ink_v3.pt"}) == "ink_v2.pt"
    assert first_free(Filename("ink.pt"), set()) == "ink.pt"


def test_first_free_sees_other_case_as_taken() -> None:
    """A name that differs in case only does not come to stand beside the other."""
    assert first_free(Filename("Ink.pt"), {key("ink.pt")}) == "Ink_v2.pt"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Ink.pt", "iNK.pt", id="case"),
        pytest.param("\u00e9.pt", "e\u0301.pt", id="normalisation"),
        pytest.param("\u00c9.pt", "e\u0301.pt", id="both"),
        pytest.param("STRASSE.pt", "straße.pt", id="sharp s"),
    ],
)
def test_keys_meet(one: str, other: str) -> None:
    """Names that a careless filesystem would take for one share a key."""
    assert key(one) == key(other)


@given(st.text())
def test_a_key_is_its_own_key(name: str) -> None:
    """Taking the key twice changes nothing."""
    assert key(key(name)) == key(name)


def test_partial_path_names_a_location() -> None:
    """An entity type and a plain name make a location that prints as it came."""
    location = parse_partial_path("styles/ink.pt", Place.BIN, TYPES)

    assert (location.place, location.entity_type, location.name) == (Place.BIN, "styles", "ink.pt")
    assert location.partial_path == "styles/ink.pt"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="empty"),
        pytest.param("ink.pt", id="no type"),
        pytest.param("/styles/ink.pt", id="absolute"),
        pytest.param("styles/../faces/ink.pt", id="traversal"),
        pytest.param("../styles/ink.pt", id="traversal first"),
        pytest.param("styles//ink.pt", id="double slash"),
        pytest.param("other/ink.pt", id="unknown type"),
        pytest.param("Styles/ink.pt", id="type in another case"),
        pytest.param("styles/", id="no name"),
        pytest.param("styles/.pt", id="hidden"),
        pytest.param("styles/ink.txt", id="extension"),
        pytest.param("styles/a\0.pt", id="null"),
        pytest.param("styles/a\ud800.pt", id="surrogate"),
        pytest.param("styles/" + "a" * 253 + ".pt", id="too long"),
    ],
)
def test_partial_paths_that_name_nothing(raw: str) -> None:
    """What this server never gave out is refused by its shape."""
    with pytest.raises(FieldInvalid, match="not a partial path") as refused:
        parse_partial_path(raw, Place.MODELS, TYPES)

    assert refused.value.complaints[0].loc == ("body", "partial_path")
