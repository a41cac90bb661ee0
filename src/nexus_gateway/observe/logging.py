"""The log of the process: one JSON object per line, whoever writes it and whatever a caller put into names and headers.

For:      everything that is not a request line (`observe.log` writes those): the gateway's own lines, the server's, and
          what libraries and the loop warn of.
Touches:  the standard library's loggers, and the line writer.
"""

import json
import logging
from collections.abc import MutableMapping
from typing import Any, Final

import msgspec
import structlog

from .lines import LineWriter

PACKAGE: Final = "nexus_gateway"
SERVER: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
ALWAYS_TOLD: Final = (f"{PACKAGE}.edge.admin",)  # what operators do is told whatever the level
NOT_TOLD: Final = ("color_message",)  # uvicorn's message once more, for terminals


class LineHandler(logging.Handler):
    """Hands finished lines to the writer; the loop never waits for stdout."""

    def __init__(self, writer: LineWriter, level: str) -> None:
        super().__init__()
        self._writer = writer
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self.addFilter(lambda record: record.levelno >= self._least or record.name in ALWAYS_TOLD)
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
                    _leave_out,
                    structlog.processors.JSONRenderer(serializer=_to_json),
                ],
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except (TypeError, ValueError, KeyError):  # the arguments do not fit the message: told without them
            record.msg, record.args = str(record.msg), None
            text = self.format(record)
        line = text.encode() + b"\n"
        self._writer.put(1, lambda: line)


def configure(writer: LineWriter, level: str) -> logging.Handler:
    """Send all loggers' lines to `writer`, the package's from `level` on; returns the handler, for `release`."""
    handler = LineHandler(writer, level)
    logging.getLogger().addHandler(handler)
    logging.getLogger(PACKAGE).setLevel(level.upper())
    for name in ALWAYS_TOLD:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


def release(handler: logging.Handler) -> None:
    logging.getLogger().removeHandler(handler)
    logging.getLogger(PACKAGE).setLevel(logging.NOTSET)


def take_over(writer: LineWriter, level: str) -> None:
    """For the process's whole life: also what the server says before the application is open and after it is closed,
    and what Python warns of."""
    configure(writer, level)
    logging.captureWarnings(True)
    for name in SERVER:
        logger = logging.getLogger(name)
        logger.handlers.clear()  # text, some of it on stdout among our lines
        logger.propagate = True


def _leave_out(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in NOT_TOLD:
        fields.pop(name, None)
    return fields


def _to_json(fields: MutableMapping[str, Any], **_: Any) -> str:
    try:
        return msgspec.json.encode(fields, enc_hook=str).decode()
    except (UnicodeEncodeError, TypeError):  # half a character, as file names may hold; a key that is no text
        return json.dumps({str(name): value for name, value in fields.items()}, default=str)
