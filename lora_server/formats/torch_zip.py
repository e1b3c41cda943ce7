"""torch's zip checkpoints: one pickle, one record per storage, a few words beside them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_stream import PickleStream
from lora_server.formats.pickle_walk import walk
from lora_server.formats.refusals import (
    CORRUPT,
    TOO_COMPLEX,
    UNSUPPORTED,
    ZIP_AMBIGUOUS,
)
from lora_server.formats.source import Read, exactly
from lora_server.formats.torch_objects import TorchRules
from lora_server.formats.torch_storages import Storages
from lora_server.formats.zip_archive import Member, check_crc, read_members

MAGIC = b"PK\3\4"
MAX_PICKLE_BYTES = 64 * 1024 * 1024
MAX_NOTE_BYTES = 256  # of version, byteorder and the like
MAX_FOLDER_BYTES = 200

_PICKLE = "data.pkl"
_VERSION = "version"
_BYTEORDER = "byteorder"
_NOTES = frozenset(
    {_VERSION, _BYTEORDER, ".data/serialization_id", ".format_version", ".storage_alignment"}
)
_RECORD = "data/"
_KEY = re.compile("[0-9]{1,9}")
_TORCHSCRIPT = re.compile(r"code/.*|constants\.pkl|constants/.*")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint's object, and where in the file each of its storages begins."""

    root: object
    begins: Mapping[str, int]


def load(read: Read, size: int) -> Loaded:
    """Return the object of a zip checkpoint of `size` bytes, every byte of it accounted for."""
    members = _by_role(read_members(read, size))
    _check_notes(read, members)
    for member in members.values():
        check_crc(read, member)
    storages = Storages(_KEY)
    root = _walk_pickle(read, members[_PICKLE], storages)
    _check_records(members, storages)
    begins = {key: members[_RECORD + key].begin for key in storages.by_key}
    return Loaded(root, begins)


def _by_role(members: tuple[Member, ...]) -> dict[str, Member]:
    """Key the members by their names inside the one top folder."""
    roles: dict[str, Member] = {}
    folders: set[str] = set()
    for member in members:
        folder, _, role = member.name.partition("/")
        _check_role(member.name, role)
        folders.add(folder)
        roles[role] = member
    if len(folders) != 1 or not _is_folder(*folders):
        raise FileRefused(ZIP_AMBIGUOUS, "the members do not share one plainly named top folder")
    if _PICKLE not in roles or _VERSION not in roles:
        raise FileRefused(CORRUPT, "not a torch checkpoint: no data.pkl and version in the zip")
    return roles


def _check_role(name: str, role: str) -> None:
    if _TORCHSCRIPT.fullmatch(role):
        reason = "a TorchScript archive holds code; save the state dict alone, as .safetensors"
        raise FileRefused(UNSUPPORTED, reason)
    record = role.removeprefix(_RECORD) if role.startswith(_RECORD) else ""
    if role not in _NOTES | {_PICKLE} and not _KEY.fullmatch(record):
        raise FileRefused(
            ZIP_AMBIGUOUS, f"zip member {excerpt(name)} is none that torch.save writes"
        )


def _is_folder(name: str) -> bool:
    return (
        0 < len(name.encode()) <= MAX_FOLDER_BYTES
        and name not in {".", ".."}
        and not set(name) & {"\\", ":"}
    )


def _check_notes(read: Read, members: Mapping[str, Member]) -> None:
    for role in _NOTES & members.keys():
        if members[role].size > MAX_NOTE_BYTES:
            raise FileRefused(CORRUPT, f"zip member {role} has more than {MAX_NOTE_BYTES} bytes")
    order = members.get(_BYTEORDER)
    if order and exactly(read, order.begin, order.size) != b"little":
        raise FileRefused(UNSUPPORTED, "the tensors are not little-endian")


def _walk_pickle(read: Read, member: Member, storages: Storages) -> object:
    if member.size > MAX_PICKLE_BYTES:
        raise FileRefused(TOO_COMPLEX, f"{_PICKLE} has more than {MAX_PICKLE_BYTES} bytes")
    stream = PickleStream(read, member.begin, member.begin + member.size)
    root = walk(stream, TorchRules(storages), _PICKLE)
    if stream.remaining:
        raise FileRefused(
            CORRUPT, f"{_PICKLE} byte {stream.position}: bytes after the pickle's end"
        )
    return root


def _check_records(members: Mapping[str, Member], storages: Storages) -> None:
    records = {role.removeprefix(_RECORD) for role in members if role.startswith(_RECORD)}
    for key in sorted(records ^ storages.by_key.keys()):
        fact = "is referred to by nothing" if key in records else "is missing"
        raise FileRefused(CORRUPT, f"record {excerpt(_RECORD + key)} {fact}")
    for key, storage in storages.by_key.items():
        found = members[_RECORD + key].size
        if found != storage.nbytes:
            reason = f"record {excerpt(_RECORD + key)} has {found} bytes, not {storage.nbytes}"
            raise FileRefused(CORRUPT, reason)
