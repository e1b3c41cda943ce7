"""The verdict at the door: the judge's children look, the `[ingest]` settings decide.

Nothing of a file is parsed in this process. Judging needs an open descriptor and never a path.
"""

import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from lora_server import names
from lora_server.config import IngestConfig
from lora_server.errors import FileRefused, JudgeUnavailable
from lora_server.formats.sniff import SNIFF_BYTES
from lora_server.judge import JudgePool
from lora_server.records import Judgement, Verdict
from lora_server.staging import StagedFile

UNKNOWN = "unknown"  # the adapter family of a well-formed file that no rule knows


class Door:
    """One pool of judges and the rules of one configuration.

    Raises:
        JudgeUnavailable: from any question, when there is no child to ask; that says nothing
            about the file.

    """

    def __init__(self, pool: JudgePool, config: IngestConfig) -> None:
        self._pool = pool
        self._config = config

    def check_extension(self, extension: str) -> None:
        """Turn pickles away by their name, before they are sent.

        Raises:
            FileRefused: the settings refuse them.

        """
        if extension != names.SAFETENSORS and self._config.pickle == "refuse":
            message = f"Pickled files ({extension}) are not taken here; save it as .safetensors."
            raise FileRefused("lora_pickle_refused", message)

    def converts(self, extension: str) -> bool:
        """Tell whether a file of this name is stored as a safetensors file."""
        return extension != names.SAFETENSORS and self._config.pickle == "convert"

    def watch(self, staged: StagedFile, extension: str) -> "Watch":
        """Return what looks at a file while it arrives."""
        return Watch(self, staged, extension)

    async def judge(self, fd: int, extension: str) -> Judgement:
        """Judge a whole file.

        Raises:
            FileRefused: it may not come in.

        """
        return await self._judge("judge", fd, extension)

    async def judge_found(
        self, fd: int, extension: str, *, accepted_before: bool = False
    ) -> Judgement:
        """Judge a file that stands in the tree already: a refusal is noted, not raised.

        Where these very bytes were accepted before, the official library is not asked again.
        """
        try:
            if accepted_before:
                return await self._judge("rejudge", fd, extension)
            return await self.judge(fd, extension)
        except FileRefused as refused:
            return refusal(refused)

    async def judge_head(self, fd: int, extension: str, file_size: int) -> Judgement:
        """Judge a safetensors file of `file_size` bytes by what the descriptor holds of it.

        Raises:
            FileRefused: it could not come in.

        """
        found = await self._ask(
            "preflight", fd, extension=extension, file_size=file_size, **self._limits
        )
        return self._accepted(found)

    async def head(self, fd: int, extension: str) -> int:
        """Judge what has arrived; returns how much must be there to ask again, 0 for never.

        Raises:
            FileRefused: it may not come in, whatever follows.

        """
        found = await self._ask("head", fd, extension=extension, **self._limits)
        return int(found["needs"])

    async def converted(self, fd: int) -> AsyncGenerator[bytes, None]:
        """Yield a judged torch file as a safetensors file.

        Raises:
            FileRefused: it cannot be converted; what was yielded is half a file.

        """
        with _availability():
            async with aclosing(self._pool.pipe("convert", fd)) as pieces:
                async for piece in pieces:
                    yield piece

    async def bare_header(self, fd: int) -> tuple[str, int]:
        """Return a safetensors file's header without metadata, and where its tensors begin."""
        found = await self._ask("bare_header", fd, **self._limits)
        return found["header"], int(found["data_begin"])

    @property
    def _limits(self) -> dict[str, int]:
        return {"max_header_size": self._config.max_header_size}

    async def _judge(self, job: str, fd: int, extension: str) -> Judgement:
        return self._accepted(await self._ask(job, fd, extension=extension, **self._limits))

    async def _ask(self, job: str, fd: int, **arguments: Any) -> dict[str, Any]:
        with _availability():
            return await self._pool.run(job, fd, **arguments)

    def _accepted(self, found: Mapping[str, Any]) -> Judgement:
        summary = found["summary"]
        if summary["adapter"] == UNKNOWN and self._config.on_unknown == "refuse":
            message = "No known kind of adapter; this server takes only those it knows."
            raise FileRefused("lora_unknown_adapter", message)
        return Judgement(
            verdict=Verdict.ACCEPTED,
            summary=summary,
            inspection=found["inspection"],
            adapter=summary["adapter"],
            base_model=summary["base_model"],
            data_begin=found["data_begin"],
        )


class Watch:
    """Looks at a file while it arrives, so that a bad one is refused after its header."""

    def __init__(self, door: Door, staged: StagedFile, extension: str) -> None:
        self._door = door
        self._staged = staged
        self._extension = extension
        # Bytes that must have arrived for the next look; fewer could be taken for something else.
        self._needs = SNIFF_BYTES

    async def look(self) -> None:
        """Look at what has arrived, if that can tell anything new.

        Raises:
            FileRefused: the file may not come in, whatever follows.

        """
        if self._needs and self._staged.size >= self._needs:
            await self._staged.settle()
            self._needs = await self._door.head(self._staged.fd, self._extension)


def refusal(refused: FileRefused) -> Judgement:
    """Return what is noted of a file that would not have come in by the door."""
    facts = {"code": refused.code, "reason": refused.reason}
    return Judgement(verdict=Verdict.REFUSED, summary=facts, inspection=None)


@contextmanager
def _availability() -> Iterator[None]:
    try:
        yield
    except (ChildProcessError, OSError) as error:
        raise JudgeUnavailable(str(error)) from error


def opened_memory(content: bytes) -> int:
    """Return the descriptor of an anonymous file that holds `content`; the caller closes it."""
    fd = os.memfd_create("header", os.MFD_CLOEXEC)
    os.write(fd, content)
    return fd
