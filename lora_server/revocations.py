"""Which tokens stopped being good before their time: a file of JSON lines.

`{"jti": "...", "revoked_at": 1700000000}` ends one token, and
`{"subject": "...", "not_before": 1700000000}` every token of a subject that was issued up to
then. The file is only ever replaced as a whole, so that a reader never sees half a line.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from lora_server.errors import ConfigInvalid
from lora_server.filesystem import sync_folder

NEW_FILE_MODE = 0o640
SETTING = "auth.revoked_file"


class RevokedToken(BaseModel):
    """One token, by its jti."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    jti: str
    revoked_at: FiniteFloat  # seconds since the epoch

    @property
    def time(self) -> float:
        """When it was revoked, in seconds since the epoch."""
        return self.revoked_at


class RevokedSubject(BaseModel):
    """Every token of a subject that was issued at `not_before` or earlier."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    subject: str
    not_before: FiniteFloat  # seconds since the epoch

    @property
    def time(self) -> float:
        """When it was revoked, in seconds since the epoch."""
        return self.not_before


Entry = RevokedToken | RevokedSubject
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True)
class _Revoked:
    jtis: frozenset[str] = frozenset()
    not_before: dict[str, float] = field(default_factory=dict)


class Revocations:
    """What the file said when it was last read; without a path, nothing is revoked.

    It is read when this is made, and again by `refresh`. A file that does not exist yet
    revokes nothing. `is_revoked` may be called while another thread refreshes.

    Raises:
        ConfigInvalid: the file is there but cannot be read, or a line of it is none of the two.

    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._revoked = _Revoked()
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed; blocks on the disk.

        Raises:
            ConfigInvalid: it is broken or gone. What was known stays in force, and the same
                state of the file is not reported twice: log it and go on.

        """
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            raise ConfigInvalid(f"{SETTING}: {self._path} is gone; what it said stays in force")
        self._revoked = _index(_read(self._path))

    def is_revoked(self, jti: str | None, subject: str, iat: float) -> bool:
        """Tell whether a token with these claims is revoked; `iat` in seconds since the epoch."""
        revoked = self._revoked
        return jti in revoked.jtis or iat <= revoked.not_before.get(subject, -1)


def revoke_token(path: Path, jti: str, *, now: float, keep_s: float) -> None:
    """Add one token to the file, durably, and drop entries older than `keep_s` seconds.

    Raises:
        ConfigInvalid: the file as it stands is broken; nothing was changed.
        OSError: it cannot be written.

    """
    _replace(path, RevokedToken(jti=jti, revoked_at=int(now)), now - keep_s)


def revoke_subject(path: Path, subject: str, *, now: float, keep_s: float) -> None:
    """Add all tokens of a subject issued until `now`, whose second is included.

    Drops and raises as `revoke_token` does.
    """
    _replace(path, RevokedSubject(subject=subject, not_before=int(now)), now - keep_s)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigInvalid(f"{SETTING}: {path} cannot be read: {error.strerror}") from error
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _read(path: Path) -> list[Entry]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigInvalid(f"{SETTING}: {path} cannot be read: {error.strerror}") from error
    return [_entry(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        return _ENTRY.validate_json(line)
    except ValidationError as error:
        raise ConfigInvalid(f"{SETTING}: {path}, line {number} is no revocation") from error


def _index(entries: Sequence[Entry]) -> _Revoked:
    not_before: dict[str, float] = {}
    for entry in entries:
        if isinstance(entry, RevokedSubject):
            known = not_before.get(entry.subject, entry.time)
            not_before[entry.subject] = max(known, entry.time)
    jtis = frozenset(entry.jti for entry in entries if isinstance(entry, RevokedToken))
    return _Revoked(jtis, not_before)


def _replace(path: Path, added: Entry, oldest: float) -> None:
    _make(path)
    with _locked(path):
        entries = [entry for entry in _read(path) if entry.time >= oldest]
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
            try:
                _hand_over(part.fileno(), path.stat())
                lines = [entry.model_dump_json() + "\n" for entry in (*entries, added)]
                part.write("".join(lines).encode())
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(path)
            finally:
                Path(part.name).unlink(missing_ok=True)
        sync_folder(path.parent)


def _make(path: Path) -> None:
    """Make the file, empty, if there is none: it belongs to whom its folder belongs."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _give(descriptor, path.parent.stat())
            os.fchmod(descriptor, NEW_FILE_MODE)  # only now can anyone else read it
        finally:
            os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other writers out; not by the folder, which a running server may have locked."""
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # not replaced meanwhile
                yield
                return
        finally:
            os.close(descriptor)


def _hand_over(descriptor: int, old: os.stat_result) -> None:
    os.fchmod(descriptor, old.st_mode & 0o777)
    _give(descriptor, old)


def _give(descriptor: int, like: os.stat_result) -> None:
    """Set the owner; only root can give a file away, anyone else writes in their own folder."""
    if os.geteuid() == 0:
        os.fchown(descriptor, like.st_uid, like.st_gid)
