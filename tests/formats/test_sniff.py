"""Claims about telling what a file really is."""

import re

import pytest

from lora_server.errors import FileRefused
from lora_server.formats.sniff import Kind, check_extension, sniff
from tests.formats.hostile_safetensors import LEGACY_TORCH, LFS_POINTER, TRICKS
from tests.formats.safetensors_files import one

KINDS = {
    "zip": Kind.TORCH_ZIP,
    "npz": Kind.NPZ,
    "legacy torch": Kind.TORCH_LEGACY,
    "bare pickle": Kind.PICKLE,
    "text pickle": Kind.PICKLE,
    "tar": Kind.TAR,
    "7z": Kind.SEVEN_ZIP,
    "RAR": Kind.RAR,
    "gzip": Kind.COMPRESSED,
    "npy": Kind.NPY,
    "GGUF": Kind.GGUF,
    "HDF5": Kind.HDF5,
    "HTML page": Kind.HTML,
    "HTML page after space": Kind.HTML,
    "XML error": Kind.HTML,
    "JSON error": Kind.JSON,
    "LFS pointer": Kind.LFS_POINTER,
    "ELF program": Kind.PROGRAM,
    "script": Kind.PROGRAM,
    "PNG": Kind.IMAGE,
    "JPEG": Kind.IMAGE,
    "PDF": Kind.PDF,
    "SQLite": Kind.DATABASE,
    "prose": Kind.UNKNOWN,
    "three bytes": Kind.UNKNOWN,
    "no bytes at all": Kind.EMPTY,
}
TORCH_NAMES = (".ckpt", ".pt", ".pth", ".bin")


@pytest.mark.parametrize(("trick", "kind"), KINDS.items(), ids=KINDS.keys())
def test_the_first_bytes_tell_the_kind(trick: str, kind: Kind) -> None:
    """A file is taken for what it is, whatever it is called."""
    assert sniff(TRICKS[trick].build()[:1024]) is kind


@pytest.mark.parametrize("length", [0x227B, 0x8B1F, 0x0280, 0x2123, 0x5A4D, 0x7D7B, 0x315B])
def test_a_length_is_no_magic(length: int) -> None:
    """A header length whose bytes spell another format's magic stays a header length."""
    head = length.to_bytes(8, "little") + b'{"a":' + b" " * 500

    assert sniff(head) is Kind.SAFETENSORS


def test_a_safetensors_file_has_one_name() -> None:
    """Only .safetensors is right for a safetensors file."""
    kind = sniff(one())
    check_extension(kind, ".safetensors")

    with pytest.raises(FileRefused, match=r"a safetensors file; name it \.safetensors, not '\.pt'"):
        check_extension(kind, ".pt")


@pytest.mark.parametrize("extension", TORCH_NAMES)
def test_a_torch_file_has_four_names(extension: str) -> None:
    """A checkpoint may be called .ckpt, .pt, .pth or .bin, and not .safetensors."""
    kind = sniff(LEGACY_TORCH)
    check_extension(kind, extension)

    with pytest.raises(FileRefused, match="legacy format"):
        check_extension(kind, ".safetensors")


def test_a_refusal_says_what_to_do() -> None:
    """Whoever sends an LFS pointer learns that it is one and how to get the file."""
    advice = re.escape("the file is a Git LFS pointer; run git lfs pull")
    with pytest.raises(FileRefused, match=advice) as refusal:
        check_extension(sniff(LFS_POINTER), ".safetensors")

    assert refusal.value.code == "lora_wrong_format"


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_message(kind: Kind) -> None:
    """No kind is accepted under an unknown extension, and each has advice."""
    with pytest.raises(FileRefused, match=re.escape(f"the file is {kind}; ")):
        check_extension(kind, ".zip")
