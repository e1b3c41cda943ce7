"""What happens to evaluations, as it happens: events that many may follow, from any point."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

KEPT_EVENTS = 500  # of one evaluation
KEPT_FEEDS = 200  # of evaluations that have ended; who asks later gets the outcome alone

STATE = "state"
PROGRESS = "progress"
DONE = "done"  # the last event of an evaluation


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; `id` counts from 1 within its evaluation."""

    id: int
    name: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Feed:
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    last_id: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> bool:
        return bool(self.events) and self.events[-1].name == DONE

    def after(self, event_id: int) -> list[Event]:
        return [event for event in self.events if event.id > event_id]


class Feeds:
    """The events of the evaluations at work, and of the last ones that ended."""

    def __init__(self) -> None:
        self._feeds: dict[str, _Feed] = {}
        self._ended: deque[str] = deque()

    def publish(self, evaluation_id: str, name: str, data: Mapping[str, Any]) -> None:
        """Tell everybody who follows an evaluation, now or later."""
        feed = self._feeds.setdefault(evaluation_id, _Feed())
        feed.last_id += 1
        feed.events.append(Event(feed.last_id, name, data))
        feed.news.set()
        feed.news = asyncio.Event()
        if name == DONE:
            self._ended.append(evaluation_id)
            if len(self._ended) > KEPT_FEEDS:
                self._feeds.pop(self._ended.popleft(), None)

    async def follow(
        self, evaluation_id: str, after: int, *, silence_s: float
    ) -> AsyncIterator[Event | None]:
        """Yield the events after one, as they come, up to `done`; None after each silence.

        Ends at once where nothing is known of the evaluation. Events that are too old to be
        kept are left out. A number that was not reached yet is from an earlier life of the server,
        and then everything is news.
        """
        while feed := self._feeds.get(evaluation_id):
            news = feed.news
            after = after if after <= feed.last_id else 0
            for event in feed.after(after):
                yield event
                after = event.id
            if feed.done:
                return
            if news is feed.news:
                with suppress(TimeoutError):
                    async with asyncio.timeout(silence_s):
                        await news.wait()
                    continue
                yield None
