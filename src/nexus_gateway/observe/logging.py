"""The gateway's own log: one JSON object per line, whatever a caller put into names and headers.

For:      everything that is not a request line (`observe.log` writes those).
Touches:  the standard library's logger of this package, and the line writer.
"""

import logging
from collections.abc import MutableMapping
from typing import Any, Final

import msgspec
import structlog

from .lines import LineWriter

PACKAGE: Final = "nexus_gateway"
ALWAYS_TOLD: Final = (f"{PACKAGE}.edge.admin",)  # what operators do is told whatever the level


class LineHandler(logging.Handler):
    """Hands finished lines to the writer; the loop never waits for stdout."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.stdlib.ExtraAdder(),
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                ],
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(serializer=_to_json),
                ],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode() + b"\n"
        self._writer.put(1, lambda: line)


def configure(writer: LineWriter, level: str) -> logging.Handler:
    """Send the package's log to `writer`; returns the handler, for `release`."""
    handler = LineHandler(writer)
    logger = logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    for name in ALWAYS_TOLD:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


def release(handler: logging.Handler) -> None:
    logger = logging.getLogger(PACKAGE)
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def _to_json(fields: MutableMapping[str, Any], **_: Any) -> str:
    return msgspec.json.encode(fields, enc_hook=str).decode()
