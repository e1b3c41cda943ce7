"""The system calls under every file move."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_server.errors import StorageFull, StorageUnusable
from lora_server.filesystem import (
    disk_errors,
    make_folder,
    opened_file,
    opened_folder,
    regular_files,
    rename_exclusive,
    write_all,
)


@pytest.fixture
def folder_fd(tmp_path: Path) -> Iterator[int]:
    """Hold an empty folder open."""
    with opened_folder(tmp_path) as fd:
        yield fd


def open_descriptors() -> int:
    """Return how many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count


@pytest.fixture
def umask_077() -> Iterator[None]:
    """Let the process make nothing that others can see."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_a_rename_moves_the_entry(tmp_path: Path, folder_fd: int) -> None:
    """The file is under its new name alone."""
    (tmp_path / "a").write_bytes(b"a")

    rename_exclusive(folder_fd, "a", folder_fd, "b")

    assert os.listdir(tmp_path) == ["b"]  # noqa: PTH208 - names
    assert (tmp_path / "b").read_bytes() == b"a"


@pytest.mark.parametrize("kind", ["file", "empty folder", "dangling link"])
def test_a_rename_never_overwrites(tmp_path: Path, folder_fd: int, kind: str) -> None:
    """Whatever holds the name keeps it, and the file stays where it was."""
    (tmp_path / "a").write_bytes(b"a")
    target = tmp_path / "b"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: target.write_bytes(b"theirs"),
        "empty folder": target.mkdir,
        "dangling link": lambda: target.symlink_to("nowhere"),
    }
    make[kind]()
    before = target.lstat()

    with pytest.raises(FileExistsError):
        rename_exclusive(folder_fd, "a", folder_fd, "b")

    assert target.lstat() == before
    assert (tmp_path / "a").read_bytes() == b"a"


def test_a_rename_of_nothing_says_so(folder_fd: int) -> None:
    """A source that is gone is a FileNotFoundError."""
    with pytest.raises(FileNotFoundError):
        rename_exclusive(folder_fd, "a", folder_fd, "b")


def test_a_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    """Files cannot be led elsewhere by a link in the place of a folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(NotADirectoryError), opened_folder(tmp_path / "link"):
        pass


@pytest.mark.parametrize("mode", [0o755, 0o2750, 0o777], ids=oct)
@pytest.mark.usefixtures("umask_077")
def test_a_new_folder_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    """The mode is that of the settings, also of the folders above that were missing."""
    make_folder(tmp_path / "a" / "b", mode)

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == mode


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """What an operator has set is left alone."""
    (tmp_path / "a").mkdir(0o711)

    make_folder(tmp_path / "a", 0o755)

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o711


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writev that takes only some bytes is followed by one for the rest."""

    def miserly(fd: int, buffers: list[bytes]) -> int:
        return os.write(fd, b"".join(buffers)[:7])

    monkeypatch.setattr("os.writev", miserly)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), [b"0123456789", b"", b"abc", b"defghijklmnop"])

    assert (tmp_path / "file").read_bytes() == b"0123456789abcdefghijklmnop"


def test_only_regular_files_are_yielded(tmp_path: Path, folder_fd: int) -> None:
    """Links, folders and pipes are not files."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    assert [name for name, _ in regular_files(folder_fd)] == ["file"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("folder", errno.EISDIR), ("link", errno.ELOOP), ("nothing", errno.ENOENT)],
)
def test_what_is_no_file_is_refused_and_leaks_no_descriptor(
    tmp_path: Path, name: str, code: int
) -> None:
    """Opening a folder or a link as a file fails, and closes what it opened."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    before = open_descriptors()

    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        opened_file(tmp_path / name)

    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EIO, StorageUnusable),
        (errno.EROFS, StorageUnusable),
        (errno.ENOENT, StorageUnusable),
    ],
)
def test_a_failing_disk_is_named(code: int, meaning: type[Exception]) -> None:
    """What the kernel says becomes what the operator can act on."""
    with pytest.raises(meaning), disk_errors():
        raise OSError(code, os.strerror(code))


def test_an_expected_failure_passes_unchanged() -> None:
    """A name taken by another hand is no failure of the disk."""
    with pytest.raises(FileExistsError), disk_errors(FileExistsError):
        raise FileExistsError
