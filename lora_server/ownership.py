"""Owning the trees: folders made, locked against other daemons, and proven fit; all blocking."""

import fcntl
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from lora_server.errors import ConfigInvalid
from lora_server.filesystem import make_folder, opened_folder, rename_exclusive
from lora_server.layout import Layout

_PROBE = re.compile(r"\.probe-[0-9a-f]{16}")


@contextmanager
def owned(layout: Layout, dir_mode: int) -> Iterator[None]:
    """Make the folders, be their one owner until the end of the block, try the moves.

    Raises:
        ConfigInvalid: the folders cannot be used together, or another daemon owns one of them.

    """
    with ExitStack() as locks:
        try:
            _make_folders(layout, dir_mode)
            for folder in (layout.state, *layout.roots):
                locks.enter_context(_locked(folder))
            _clear_probes(layout)
            try_moves(layout.folders)
        except OSError as error:
            raise ConfigInvalid(
                "storage: models_dir, bin_dir, staging_dir and the folders in them must be "
                "writable folders (no symbolic links) of one local filesystem, so that files "
                f"move between them atomically: {error}"
            ) from error
        yield


def try_moves(folders: Sequence[Path]) -> None:
    """Move a probe through `folders`, from the first to the last, the way that files move.

    Raises:
        OSError: a folder cannot be written, or lies on another filesystem; names it.

    """
    probe = f".probe-{secrets.token_hex(8)}"
    (folders[0] / probe).touch(exist_ok=False)
    at = folders[0]
    try:
        for here, there in pairwise(folders):
            _move(probe, here, there)
            at = there
    finally:
        (at / probe).unlink()


def _make_folders(layout: Layout, dir_mode: int) -> None:
    make_folder(layout.staging, 0o700)
    make_folder(layout.state, 0o750)
    for folder in layout.folders[1:]:
        make_folder(folder, dir_mode)


def _move(name: str, here: Path, there: Path) -> None:
    try:
        with opened_folder(here) as source, opened_folder(there) as target:
            rename_exclusive(source, name, target, name)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (from {here} to {there})") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # On the folder itself: a daemon with another state_dir must not share a tree either, and
    # systemd-tmpfiles keeps out of a folder that is locked.
    with opened_folder(folder) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigInvalid(f"storage: another lora-server owns {folder}") from error
        yield


def _clear_probes(layout: Layout) -> None:
    """Remove the probes of a run that was killed while it moved one."""
    for folder in layout.folders:
        for path in folder.glob(".probe-*"):
            if _PROBE.fullmatch(path.name):
                path.unlink()
