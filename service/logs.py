"""One JSON object a line: what the service logs, with the id of the request that was being answered."""

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
FACTS: ContextVar[dict[str, Any] | None] = ContextVar("facts", default=None)  # of the request, for its one line
LOGGER_NAME = "ccnet.service"


class JsonFormatter(logging.Formatter):
    """Puts a record, and the dictionary under its `fields`, into one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record; line breaks in what users sent cannot forge another one."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logging(level: str) -> None:
    """Send everything, the HTTP server's own lines included, to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def note(**facts: Any) -> None:
    """Add fields to the line of the request that is being answered; a later value replaces an earlier one."""
    noted = FACTS.get()
    if noted is not None:
        noted |= facts


def log(level: int, message: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
    """One line with named fields."""
    logging.getLogger(LOGGER_NAME).log(level, message, exc_info=exc_info, extra={"fields": fields})
