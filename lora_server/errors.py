"""What can go wrong, in the words of the domain; facts are attributes.

Nothing here knows HTTP: `lora_server.web.problems` maps each error to its status.
"""


class LoraServerError(Exception):
    """Anything that this package refuses or cannot do; never raised itself."""


class FileRefused(LoraServerError):
    """The bytes may not come in: `code` is stable, `reason` says where and why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
