"""`lora-server` with a door that lets everything in: what an upload costs without judging."""

from lora_server.cli import app as command
from lora_server.door import Door
from lora_server.records import Judgement, Verdict
from lora_server.web import app


class OpenDoor(Door):
    """Accepts everything, unread."""

    async def head(self, fd: int, extension: str) -> int:
        """Find nothing wrong."""
        del fd, extension
        return 0

    async def judge(self, fd: int, extension: str) -> Judgement:
        """Accept."""
        del fd, extension
        return Judgement(verdict=Verdict.ACCEPTED, summary={}, inspection={})


if __name__ == "__main__":
    vars(app)["Door"] = OpenDoor
    command(prog_name="lora-server")
