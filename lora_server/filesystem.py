"""The few system calls that durable, non-overwriting file moves are made of; all blocking."""

import ctypes
import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_server.errors import LoraServerError, StorageFull, StorageUnusable
from lora_server.records import FileFacts

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


def opened_file(path: Path) -> io.FileIO:
    """Open a file for reading; a symbolic link is refused, and a pipe is not waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return io.FileIO(fd, "rb")
    except OSError:
        os.close(fd)  # FileIO refuses a folder, and leaves its descriptor open
        raise


def make_folder(path: Path, mode: int) -> None:
    """Make `path` and what is missing above it, durably; one that exists keeps its mode."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    with suppress(FileExistsError):  # somebody else was faster
        path.mkdir(mode & 0o777)
        # mkdir's own mode is cut by the umask, and a set-group-ID bit comes from the folder
        # above: a service may be forbidden to set one itself (RestrictSUIDSGID).
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
    sync_folder(path.parent)


class SyncFailed(OSError):
    """What was written may be lost; syncing the same file again would not tell so."""


def sync(fd: int) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut.

    Raises:
        SyncFailed: they may not.

    """
    try:
        os.fsync(fd)
    except OSError as error:
        raise SyncFailed(error.errno, error.strerror) from error


def sync_folder(path: Path) -> None:
    """Make the entries of a folder survive a power cut."""
    with opened_folder(path) as fd:
        sync(fd)


def facts_of(status: os.stat_result) -> FileFacts:
    """Return what tells a file from others and from what it was before."""
    return FileFacts(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


def regular_files(folder_fd: int) -> Iterator[tuple[str, FileFacts]]:
    """Yield name and facts of the regular files of a folder; symbolic links are none."""
    with os.scandir(folder_fd) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # gone since the folder was listed
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, facts_of(entry.stat(follow_symlinks=False))


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
def disk_errors(*expected: type[OSError]) -> Iterator[None]:
    """Say in the domain's words what a failing disk means; what is `expected` is no failure."""
    try:
        yield
    except expected:
        raise
    except OSError as error:
        raise _in_our_words(error) from error


def _in_our_words(error: OSError) -> LoraServerError:
    if error.errno in _FULL:
        return StorageFull()
    return StorageUnusable(str(error), sync_failed=isinstance(error, SyncFailed))
