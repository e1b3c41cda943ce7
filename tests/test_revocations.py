"""Revocations: what the file says, when it is heeded, and how it is written."""

import fcntl
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lora_server.errors import ConfigInvalid
from lora_server.filesystem import opened_folder
from lora_server.revocations import Revocations, revoke_subject, revoke_token

DAY = 86400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file goes; nothing is there yet."""
    return tmp_path / "revoked.jsonl"


def entries(path: Path) -> list[dict[str, object]]:
    """Return what the file says, line by line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_without_a_path_nothing_is_revoked() -> None:
    """A server without auth.revoked_file revokes nothing."""
    revocations = Revocations(None)
    revocations.refresh()

    assert not revocations.is_revoked("a", "alice", 0)


def test_absent_file_revokes_nothing_until_it_comes(path: Path) -> None:
    """The file may be made while the server runs."""
    revocations = Revocations(path)
    assert not revocations.is_revoked("a", "alice", 0)

    revoke_token(path, "a", now=100, keep_s=DAY)
    revocations.refresh()

    assert revocations.is_revoked("a", "alice", 0)
    assert not revocations.is_revoked("b", "alice", 0)
    assert not revocations.is_revoked(None, "alice", 0)


def test_subject_is_revoked_up_to_a_moment(path: Path) -> None:
    """Tokens of a subject end by when they were issued; the second itself is included."""
    revoke_subject(path, "alice", now=100.7, keep_s=DAY)
    revocations = Revocations(path)

    assert revocations.is_revoked(None, "alice", 100)
    assert not revocations.is_revoked(None, "alice", 101)
    assert not revocations.is_revoked(None, "bob", 100)


def test_latest_revocation_of_a_subject_counts(path: Path) -> None:
    """An older line after a newer one does not bring tokens back."""
    revoke_subject(path, "alice", now=200, keep_s=DAY)
    revoke_subject(path, "alice", now=100, keep_s=DAY)

    assert Revocations(path).is_revoked(None, "alice", 200)


def test_old_entries_are_pruned(path: Path) -> None:
    """Entries that no living token can match are dropped by the next write."""
    revoke_token(path, "old", now=0, keep_s=DAY)
    revoke_subject(path, "alice", now=1, keep_s=DAY)
    revoke_token(path, "new", now=DAY + 1, keep_s=DAY)

    assert entries(path) == [
        {"subject": "alice", "not_before": 1},
        {"jti": "new", "revoked_at": DAY + 1},
    ]


def test_a_daemon_that_owns_the_folder_keeps_nobody_out(path: Path) -> None:
    """A running server locks its state folder, where the file usually stands."""
    with ThreadPoolExecutor() as threads, opened_folder(path.parent) as owned:
        fcntl.flock(owned, fcntl.LOCK_EX)
        try:
            threads.submit(revoke_token, path, "a", now=100, keep_s=DAY).result(timeout=5)
        finally:
            fcntl.flock(owned, fcntl.LOCK_UN)

    assert Revocations(path).is_revoked("a", "alice", 0)


def test_new_file_is_closed_to_others(path: Path) -> None:
    """A new file is readable by its owner and group, which are those of its folder."""
    revoke_token(path, "a", now=0, keep_s=DAY)

    facts, folder = path.stat(), path.parent.stat()
    assert stat.S_IMODE(facts.st_mode) == 0o640
    assert (facts.st_uid, facts.st_gid) == (folder.st_uid, folder.st_gid)


def test_mode_is_kept(path: Path) -> None:
    """A write leaves the operator's mode as it is."""
    path.touch()
    path.chmod(0o604)

    revoke_token(path, "a", now=0, keep_s=DAY)

    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_is_kept(path: Path) -> None:
    """A revocation by root leaves the file with the service that reads it."""
    path.touch()
    os.chown(path, 1234, 5678)

    revoke_token(path, "a", now=0, keep_s=DAY)

    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    """Writing leaves no half-written file, neither when it works nor when it fails."""
    revoke_token(path, "a", now=0, keep_s=DAY)
    with pytest.raises(ValueError, match="surrogates"):
        revoke_token(path, "\ud800", now=0, keep_s=DAY)

    assert list(path.parent.iterdir()) == [path]


def test_concurrent_writers_lose_nothing(path: Path) -> None:
    """Of many revocations at once each one is kept."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: revoke_token(path, f"t{n}", now=0, keep_s=DAY), range(40)))

    assert {entry["jti"] for entry in entries(path)} == {f"t{n}" for n in range(40)}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("{}", id="neither"),
        pytest.param('{"jti": "a"}', id="no time"),
        pytest.param('{"jti": 5, "revoked_at": 1}', id="jti is no string"),
        pytest.param('{"jti": "a", "revoked_at": "1"}', id="time is no number"),
        pytest.param('{"subject": "a", "not_before": NaN}', id="not a time"),
        pytest.param('{"subject": "a", "not_before": 1, "jti": "b"}', id="both"),
        pytest.param("\ud7ff\x00", id="binary"),
    ],
)
def test_broken_line_stops_the_start(path: Path, line: str) -> None:
    """A server does not start on a list of revocations that it cannot read whole."""
    path.write_text('{"jti": "a", "revoked_at": 1}\n\n' + line, encoding="utf-8")

    with pytest.raises(ConfigInvalid, match=r"^auth\.revoked_file: .*line 3"):
        Revocations(path)


def test_broken_line_later_keeps_the_old(path: Path) -> None:
    """A running server reports a broken file once, and keeps to what it knew."""
    revoke_token(path, "a", now=0, keep_s=DAY)
    revocations = Revocations(path)
    path.write_text("broken\n", encoding="utf-8")

    with pytest.raises(ConfigInvalid):
        revocations.refresh()
    revocations.refresh()
    assert revocations.is_revoked("a", "alice", 0)


def test_broken_file_is_not_rewritten(path: Path) -> None:
    """A revocation is never written over lines that nobody understands."""
    path.write_text("broken\n", encoding="utf-8")

    with pytest.raises(ConfigInvalid):
        revoke_token(path, "a", now=0, keep_s=DAY)
    assert path.read_text(encoding="utf-8") == "broken\n"


def test_removed_file_brings_no_token_back(path: Path) -> None:
    """Whoever removes the file does not revive what it revoked."""
    revoke_token(path, "a", now=0, keep_s=DAY)
    revocations = Revocations(path)
    path.unlink()

    with pytest.raises(ConfigInvalid, match="is gone"):
        revocations.refresh()
    assert revocations.is_revoked("a", "alice", 0)


def test_unreadable_path_is_named(tmp_path: Path) -> None:
    """A folder in the place of the file is reported as a wrong setting."""
    with pytest.raises(ConfigInvalid, match=r"^auth\.revoked_file: .*cannot be read"):
        Revocations(tmp_path)
