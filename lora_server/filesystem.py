"""The few system calls that durable, non-overwriting file moves are made of; all blocking."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_server.errors import LoraServerError, StorageFull, StorageUnusable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RENAME_NOREPLACE = 1  # <linux/fs.h>

# Python wraps rename(2), which overwrites; glibc has had renameat2 since 2.28.
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = _libc.renameat2
_renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)
_renameat2.restype = ctypes.c_int


def rename_exclusive(source_fd: int, source: str, target_fd: int, target: str) -> None:
    """Move a directory entry in one atomic step that never overwrites.

    Raises:
        FileExistsError: `target` is taken.
        FileNotFoundError: `source` is gone.
        OSError: EINVAL where the filesystem cannot do this (NFS), EXDEV across filesystems.

    """
    if _renameat2(
        source_fd, os.fsencode(source), target_fd, os.fsencode(target), _RENAME_NOREPLACE
    ):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), source, None, target)


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Hold a folder open by descriptor; a symbolic link in its place is refused."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def make_folder(path: Path, mode: int) -> None:
    """Make `path` and what is missing above it, durably; one that exists keeps its mode."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(mode)  # mkdir's own mode is cut by the umask
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the entries of a folder survive a power cut."""
    with opened_folder(path) as fd:
        os.fsync(fd)


def write_all(fd: int, chunks: list[bytes]) -> None:
    """Append every byte of `chunks` (at most IOV_MAX of them) without joining them."""
    rest: list[bytes | memoryview] = list(chunks)
    while rest:
        written = os.writev(fd, rest)
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = memoryview(rest[0])[written:]


@contextmanager
def disk_errors() -> Iterator[None]:
    """Say in the domain's words what a failing disk means; a name taken or gone is no failure."""
    try:
        yield
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        raise _in_our_words(error) from error


def _in_our_words(error: OSError) -> LoraServerError:
    return StorageFull() if error.errno in _FULL else StorageUnusable(str(error))
