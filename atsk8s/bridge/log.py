"""Logging through Traffic Server: the host's own log, its rotation and its levels, instead of a stdout nobody reads.

A line is `message name=value ...`: the message is a fixed text, what varies is in the fields.  Values are escaped and bounded, so
that an object's name can neither forge a line nor flood the log.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Final

from _atsk8s import lib

from atsk8s.config import LogLevel

VALUE_CHARS_MAX: Final = 512
LINE_BYTES_MAX: Final = 16 * 1024
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]()*-]+")
_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Final = {  # our name, logging's number; their order is bridge.h's number
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


class AtsHandler(logging.Handler):
    """Hands each record to Traffic Server as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = format_record(record).encode("utf-8", "backslashreplace")[:LINE_BYTES_MAX]
        except Exception:
            line = b"a log record could not be formatted"
        level = sum(record.levelno >= number for number in _LEVELS.values()) - 1
        lib.atsk_py_log(max(level, 0), line, len(line))


def format_record(record: logging.LogRecord) -> str:
    """`message name=value ...` on one line; a traceback follows as one more field."""
    parts = [record.getMessage()]
    parts += [f"{name}={_value(value)}" for name, value in vars(record).items() if name not in _OWN_FIELDS]
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(f"traceback={json.dumps(logging.Formatter().formatException(record.exc_info))}")
    return " ".join(parts)


def _value(value: object) -> str:
    text = str(value)
    if len(text) > VALUE_CHARS_MAX:
        text = text[:VALUE_CHARS_MAX] + "..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def install(level: LogLevel) -> None:
    """Send what this package logs, and warnings of libraries, to Traffic Server."""
    handler = AtsHandler()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("atsk8s").setLevel(_LEVELS[level])
    # Libraries' own lines carry request URLs and retries; their errors reach us as exceptions and are told once.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    logging.captureWarnings(True)
