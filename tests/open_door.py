"""A door that lets everything in, for claims about what stands behind it."""

from lora_server.config import IngestConfig
from lora_server.door import Door
from lora_server.judge import JudgePool
from lora_server.records import Judgement, Verdict

ACCEPTED = Judgement(verdict=Verdict.ACCEPTED, summary={}, inspection={})


class OpenDoor(Door):
    """Judges nothing, so that stores and catalogues are tried with any bytes."""

    def __init__(self) -> None:
        super().__init__(JudgePool(), IngestConfig())  # a pool that is never entered

    async def head(self, fd: int, extension: str) -> int:
        """Find nothing wrong."""
        del fd, extension
        return 0

    async def judge(self, fd: int, extension: str) -> Judgement:
        """Accept."""
        del fd, extension
        return ACCEPTED
