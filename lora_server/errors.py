"""What can go wrong, in the words of the domain; facts are attributes.

Nothing here knows HTTP: `lora_server.web.problems` maps each error to its status, and a test
keeps that table complete. Every message is one sentence that a caller can act on.

    LoraServerError
    ├── Unauthenticated, Forbidden, TooManyFailures      who calls
    ├── UploadTooLarge, UploadStalled, UploadCut,        the bytes on their way in
    │   MalformedUpload, UnsupportedUpload, TooManyUploads, StorageFull
    ├── FieldsInvalid, FileRefused                       what the bytes say
    ├── LoraNotFound, NameTaken, MovedMeanwhile          the store and the catalogue
    ├── EvaluationNotFound, EvaluationQueueFull,         evaluations
    │   EvaluatorUnavailable, ReportInvalid
    └── ShuttingDown, StorageUnusable,                   the daemon itself
        CatalogUnusable, JudgeUnavailable
"""

from dataclasses import dataclass


class LoraServerError(Exception):
    """Anything that this package refuses or cannot do; never raised itself."""


class Unauthenticated(LoraServerError):
    """No token, or one that does not verify; `reason` is for the log, never for the client."""

    def __init__(self, reason: str, *, token_sent: bool) -> None:
        super().__init__("Not authenticated: send 'Authorization: Bearer <token>' that is valid.")
        self.reason = reason
        self.token_sent = token_sent


class Forbidden(LoraServerError):
    """The token is good but lacks a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs a token with the scope '{scope}'.")
        self.scope = scope


class TooManyFailures(LoraServerError):
    """An address failed to authenticate too often."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many failed logins from this address; wait {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class TooManyUploads(LoraServerError):
    """A principal, or the server as a whole, has as many uploads in flight as allowed."""

    def __init__(self, limit: int, *, of_principal: bool) -> None:
        whose = "You have" if of_principal else "The server has"
        super().__init__(f"{whose} {limit} uploads in flight, the most allowed; retry soon.")
        self.limit = limit
        self.of_principal = of_principal


class UploadTooLarge(LoraServerError):
    """The file, or the body around it, is over its cap."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The file is larger than the {max_bytes} bytes allowed.")
        self.max_bytes = max_bytes


class UploadStalled(LoraServerError):
    """The body stopped arriving, or arrives too slowly."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; nothing was stored, send it again.")


class UploadCut(LoraServerError):
    """The client went away in the middle of a body; nobody is left to read the answer."""


class MalformedUpload(LoraServerError):
    """The body is not the multipart/form-data that it claims to be."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The multipart body is malformed: {why}.")


class UnsupportedUpload(LoraServerError):
    """A content type, coding or file extension that is not taken."""


class StorageFull(LoraServerError):
    """A disk has no room: for the file and the reserve, or, with a `why`, for the catalogue."""

    def __init__(self, why: str | None = None) -> None:
        super().__init__(
            "The catalogue's disk is full and nothing was changed; the operator must make room."
            if why
            else "Not enough disk space for this file; delete or purge something first."
        )
        self.why = why


class StorageUnusable(LoraServerError):
    """The disk failed; what was begun is undone, and the operator must look.

    `sync_failed` tells that it took bytes and could not keep them.
    """

    def __init__(self, why: str, *, sync_failed: bool = False) -> None:
        super().__init__("The storage failed and nothing was changed; the operator's log says why.")
        self.why = why
        self.sync_failed = sync_failed


class CatalogUnusable(LoraServerError):
    """The catalogue's database cannot be read or written."""

    def __init__(self, why: str) -> None:
        super().__init__("The catalogue failed; retry, and tell the operator if it goes on.")
        self.why = why


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one field; `loc`, `msg` and `kind` are FastAPI's `loc`, `msg`, `type`."""

    loc: tuple[str | int, ...]
    msg: str
    kind: str


class FieldsInvalid(LoraServerError):
    """Fields of a form, query, path or JSON body are missing, double or wrong."""

    def __init__(self, *complaints: Complaint) -> None:
        super().__init__("; ".join(complaint.msg for complaint in complaints))
        self.complaints = complaints


class FieldInvalid(FieldsInvalid):
    """One field is missing, double or wrong."""

    def __init__(self, loc: tuple[str | int, ...], msg: str, kind: str) -> None:
        super().__init__(Complaint(loc, msg, kind))


class JudgeUnavailable(LoraServerError):
    """There is no process to judge the file; that says nothing about it."""

    def __init__(self, why: str) -> None:
        super().__init__("Files cannot be judged just now; nothing was stored, retry soon.")
        self.why = why


class FileRefused(LoraServerError):
    """The bytes may not come in: `code` is stable, `reason` says where and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LoraNotFound(LoraServerError):
    """No file of this name is in the tree that was asked."""

    def __init__(self, what: str = "LoRA") -> None:
        super().__init__(f"{what} not found.")


class NameTaken(LoraServerError):
    """The name is in use and versioning was switched off."""

    def __init__(self, partial_path: str) -> None:
        super().__init__(
            f"{partial_path} exists; choose another name or set use_safe_filename=true."
        )
        self.partial_path = partial_path


class MovedMeanwhile(LoraServerError):
    """The file changed its place by another hand between look-up and action."""

    def __init__(self, partial_path: str) -> None:
        super().__init__(f"{partial_path} was moved or removed meanwhile; list again.")
        self.partial_path = partial_path


class EvaluationNotFound(LoraServerError):
    """No evaluation has this id, or it has no report."""

    def __init__(self, what: str = "Evaluation") -> None:
        super().__init__(f"{what} not found; list the evaluations to see which there are.")


class EvaluationQueueFull(LoraServerError):
    """As many evaluations wait as are allowed to."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} evaluations wait already, the most allowed; retry later.")
        self.limit = limit


class EvaluatorUnavailable(LoraServerError):
    """There is no worker that could evaluate anything; `why` may be told to anybody."""

    def __init__(self, why: str) -> None:
        super().__init__(f"Nothing can be evaluated just now: {why}.")


class ReportInvalid(LoraServerError):
    """An evaluation report is not one: cut short, of another version, or not finite somewhere."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The evaluation report cannot be read ({why}); evaluate again.")
        self.why = why


class ShuttingDown(LoraServerError):
    """The daemon is draining and takes nothing new."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; retry in a few seconds.")


class CannotListen(Exception):
    """The address to listen on is taken or not ours; that may pass, so the start may be retried."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {why}")


class ConfigInvalid(Exception):
    """The settings cannot be used; the message names the key. Stops the start, status 78."""
