"""Structured logs: JSON lines for machines, columns for a person at a terminal."""

import logging
import sys

import structlog

from lora_server.config import LoggingConfig


def configure(config: LoggingConfig) -> None:
    """Set up logging for the process; called once, by the command that serves.

    Lines go to stderr. `auto` is text on a terminal and JSON everywhere else. What libraries
    log through the standard library takes the same road.
    """
    as_text = config.format == "text" or (config.format == "auto" and sys.stderr.isatty())
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
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(as_text=as_text),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)  # it tells what rows hold


def _renderer(*, as_text: bool) -> structlog.typing.Processor:
    if as_text:
        # Quoted, since what a client chose may hold the control sequences of a terminal.
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)
    return structlog.processors.JSONRenderer()
