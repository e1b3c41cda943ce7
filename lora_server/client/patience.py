"""How long to go on trying: exponential back-off with jitter, bounded in all."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from lora_server.client.errors import AnswerLost, Busy, ClientError, Unreachable

T = TypeVar("T")

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
MAX_SENDS = 4  # of one body; what fails that often on its way fails for a reason

Tell = Callable[[ClientError, float], None]  # why, and the seconds until the next try


def say_nothing(_error: ClientError, _wait_s: float) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Patience:
    """How many seconds to spend waiting, in all, between the tries of one request."""

    seconds: float
    tell: Tell = say_nothing
    _delay_s: float = field(default=FIRST_DELAY_S, init=False)
    _waited_s: float = field(default=0.0, init=False)
    _sends: int = field(default=0, init=False)

    async def attempts(self, attempt: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
        """Return what an attempt gives, made again while what hinders it may pass.

        What is not `repeatable` is made again only where the server has not seen it.

        Raises:
            Unreachable, Busy: patience ran out.
            AnswerLost: the server may have acted, and asking again could do harm.
            ClientError: whatever else an attempt raises, at once.

        """
        while True:
            try:
                return await attempt()
            except Unreachable as error:
                self._sends += error.sent
                _check_harmless(error, seen=error.sent, repeatable=repeatable)
                await self._wait(error, None)
            except Busy as error:
                self._sends += error.done
                _check_harmless(error, seen=error.done, repeatable=repeatable)
                await self._wait(error, error.retry_after_s)

    async def _wait(self, error: ClientError, asked_s: float | None) -> None:
        # Jitter, so that clients that failed together do not come back together.
        delay_s = asked_s or self._delay_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        if self._waited_s + delay_s > self.seconds or self._sends >= MAX_SENDS:
            raise error
        self.tell(error, delay_s)
        await asyncio.sleep(delay_s)
        self._waited_s += delay_s


def _check_harmless(error: ClientError, *, seen: bool, repeatable: bool) -> None:
    if seen and not repeatable:
        message = f"{error}; it may have been done all the same, so look before you try again"
        raise AnswerLost(message) from error
