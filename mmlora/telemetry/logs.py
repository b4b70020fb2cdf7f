"""Log lines with what they are about: as JSON, or as text for people."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from mmlora.names import LogFormat
from mmlora.redaction import RedactingFormatter, redact
from mmlora.telemetry.working import subject

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
"""What every record has; the rest was given as ``extra``."""


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message; domain, date, load; extras; the traceback.

    It runs in the thread that logs, so what that thread is working on is in its context.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **subject(),
        }
        for name, value in vars(record).items():
            if name not in _OWN:
                line.setdefault(name, redact(value) if isinstance(value, str) else value)
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: redact(str(value)), ensure_ascii=False)


def log_to_stderr(form: LogFormat, level: str) -> None:
    """Write this process's log lines to standard error: the set-up of a command line."""
    logging.basicConfig(level=level.upper())
    text = RedactingFormatter("%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else text)


def json_handler() -> logging.Handler | None:
    """Return the handler of this process that writes JSON; None if it writes text."""
    handlers = logging.getLogger().handlers
    return next((handler for handler in handlers if isinstance(handler.formatter, JsonFormatter)), None)


def say(
    handler: logging.Handler, text: str, error: BaseException | None = None, *, with_traceback: bool = False
) -> None:
    """Write what a command line says on standard error, whatever the level: an error, or information."""
    level, trace = logging.INFO, None
    if error is not None:
        level, trace = logging.ERROR, (type(error), error, error.__traceback__) if with_traceback else None
    handler.handle(logging.LogRecord("mmlora", level, __file__, 0, text, None, trace))
