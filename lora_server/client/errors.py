"""What can go wrong on the client's side; every message is one sentence that says what to do.

ClientError
├── NotAuthenticated, NotAllowed      who calls
├── NotFound, Refused                 what the server makes of the request
├── Unreachable, Busy, AnswerLost     the way there and back
├── NoServer                          the address, or what answers there
└── Misused, LocalProblem             this side
"""


class ClientError(Exception):
    """Anything that ends a request without a result; never raised itself."""


class NotAuthenticated(ClientError):
    """No token, or one that the server does not take."""


class NotAllowed(ClientError):
    """The token is good and lacks a scope."""


class NotFound(ClientError):
    """The server has no such thing."""


class Refused(ClientError):
    """The server will not do it, now or later; `code` is stable where the server gives one."""

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unreachable(ClientError):
    """No answer came; `sent` tells whether the server may have seen the request."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Busy(ClientError):
    """The server asks to come again; `done` tells whether it may have acted all the same."""

    def __init__(self, message: str, *, retry_after_s: float | None, done: bool) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.done = done


class AnswerLost(ClientError):
    """The answer to something that must not be asked twice never came."""


class NoServer(ClientError):
    """There is no lora_server at this address, or none that this client understands."""


class Misused(ClientError):
    """What was asked for cannot be: no URL, no path of a LoRA, no token."""


class LocalProblem(ClientError):
    """A file on this side cannot be read or written."""
