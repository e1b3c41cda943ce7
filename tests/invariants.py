"""What must hold of the trees and the catalogue whenever nothing is in flight.

Read from outside, with the standard library alone, so that it can judge a live server between
two requests, and the folders of one that was killed, once it has started again.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from lora_server.config import StorageConfig


def assert_sound(
    storage: StorageConfig, *, acknowledged: Iterable[bytes], sent: Iterable[bytes] = ()
) -> None:
    """Check every promise about files that can be seen on disk.

    Args:
        storage: where the trees stand.
        acknowledged: the contents that must be there, one for each file.
        sent: other contents that may be there: the answer about them was never heard.

    """
    files = _files(storage)
    rows = _rows(storage)
    present = Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values())
    due = Counter(hashlib.sha256(content).hexdigest() for content in acknowledged)
    possible = due + Counter(hashlib.sha256(content).hexdigest() for content in sent)

    assert due <= present, "an acknowledged file is lost or overwritten"
    assert present <= possible, "a file is partial, or stands in two places"
    assert list(storage.staging_dir.iterdir()) == [], "staging holds an orphan"
    assert rows.keys() == files.keys(), "the catalogue and the trees disagree"
    for at, row in rows.items():
        _assert_row_is_true(row, files[at], in_bin=at[0] == "bin")


def _files(storage: StorageConfig) -> dict[tuple[str, str, str], Path]:
    """Return every entry of the trees, hidden ones too, by place, entity type and name."""
    roots = {"models": storage.models_dir, "bin": storage.bin_dir}
    return {
        (place, path.parent.name, path.name): path
        for place, root in roots.items()
        for path in root.glob("*/*")
    }


def _rows(storage: StorageConfig) -> dict[tuple[str, str, str], dict[str, Any]]:
    with closing(sqlite3.connect(storage.state_dir / "catalog.sqlite3")) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM loras")]
    located = {(row["place"], row["entity_type"], row["name"]): row for row in rows}
    assert len(located) == len(rows), "a file has two rows"
    return located


def _assert_row_is_true(row: dict[str, Any], path: Path, *, in_bin: bool) -> None:
    status = path.lstat()

    assert row["next_place"] is None, f"{path} is on its way for ever"
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["size"], row["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert row["inode"] == status.st_ino
    assert (row["deleted_at"] is not None) == in_bin
    assert in_bin or row["home_name"] == row["name"]
    assert in_bin or row["deleted_by"] is None
