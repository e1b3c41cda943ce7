"""Looking at the trees: what stands where, and what is in it; blocks, and changes nothing."""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path

from lora_server import names
from lora_server.filesystem import facts_of, opened_file, opened_folder, regular_files
from lora_server.layout import Layout
from lora_server.records import FileFacts, Location, Place


def facts(path: Path) -> FileFacts | None:
    """Stat a file; None when no regular file stands there."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts_of(status) if stat.S_ISREG(status.st_mode) else None


def scan(layout: Layout, place: Place) -> dict[Location, FileFacts]:
    """Return the files of a tree that can be LoRAs; a folder that is gone is empty.

    Raises:
        FileNotFoundError: all folders are gone: a lost mount must not look as if everything
            had been deleted.

    """
    folders = {name: layout.folder(place, name) for name in layout.entity_types}
    if not any(folder.is_dir() for folder in folders.values()):
        raise FileNotFoundError(errno.ENOENT, "every folder is gone", layout.root(place))
    found: dict[Location, FileFacts] = {}
    for entity_type, folder in folders.items():
        with suppress(FileNotFoundError), opened_folder(folder) as fd:
            for name, seen in regular_files(fd):
                if names.is_plain(name):
                    found[Location(place, entity_type, name)] = seen
    return found


def digest(path: Path, begin: int) -> tuple[str, FileFacts] | None:
    """Hash a file from byte `begin`; None when it is gone or changed while it was read."""
    before = facts(path)
    if before is None:
        return None
    with suppress(FileNotFoundError, IsADirectoryError), opened_file(path) as file:
        file.seek(begin)
        sha256 = hashlib.file_digest(file, "sha256")
        if facts_of(os.fstat(file.fileno())) == before == facts(path):
            return sha256.hexdigest(), before
    return None
