"""Structured logs: fields for journald, JSON lines for machines, columns for a person."""

import logging
import sys

import structlog

from lora_server import journal
from lora_server.config import LoggingConfig


def configure(config: LoggingConfig) -> None:
    """Set up logging for the process; called once, by the command that serves.

    Lines go to stderr. `auto` is text on a terminal, entries with fields where stderr is the
    journal's, and JSON everywhere else. What libraries log through the standard library takes
    the same road.
    """
    handler, renderer = _output(config)
    level = logging.getLevelNamesMapping()[config.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)  # it tells what rows hold


def _output(config: LoggingConfig) -> tuple[logging.Handler, structlog.typing.Processor]:
    if config.format == "auto" and journal.is_stderr():
        return journal.JournalHandler(), journal.as_text
    if config.format == "text" or (config.format == "auto" and sys.stderr.isatty()):
        # Quoted, since what a client chose may hold the control sequences of a terminal.
        console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)
        return logging.StreamHandler(), console
    return logging.StreamHandler(), structlog.processors.JSONRenderer()
