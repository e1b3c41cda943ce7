"""Prometheus metrics of one application; the registry is its own, not the process's."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from lora_server.uninterrupted import meanwhile

_LAG_INTERVAL_S = 0.5
_STAGE_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """What is counted."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.received = Counter(
            "lora_upload_bytes", "Bytes of stored uploads", registry=self.registry
        )
        self.uploads = Counter(
            "lora_uploads", "Uploads by how they ended", ["result"], registry=self.registry
        )
        self.refusals = Counter(
            "lora_refusals", "Refused requests by reason", ["reason"], registry=self.registry
        )
        self.free = Gauge(
            "lora_storage_free_bytes", "Free space of the storage", registry=self.registry
        )
        self._stages = Histogram(
            "lora_upload_stage_seconds",
            "Seconds an upload spent in a stage",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Seconds from head to answer",
            ["method", "route", "status"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._lag = Histogram(
            "lora_loop_lag_seconds",
            "How late the event loop wakes up",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        Gauge(
            "lora_uploads_in_flight", "Uploads being taken in", registry=self.registry
        ).set_function(in_flight)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds that a stage of an upload takes."""
        with self._stages.labels(stage).time():
            yield

    @asynccontextmanager
    async def watching_lag(self) -> AsyncIterator[None]:
        """Measure the loop's lag until the end of the block."""
        async with meanwhile(self._watch_lag()):
            yield

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    async def _watch_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_INTERVAL_S
            await asyncio.sleep(_LAG_INTERVAL_S)
            self._lag.observe(max(0.0, time.monotonic() - due))
