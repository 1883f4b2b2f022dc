"""Logging through Traffic Server: the host's own log, its rotation and its levels, instead of a stdout nobody reads.

With --log-format=json the lines go to stderr instead, as they are: in Traffic Server's log each would follow a date and a thread,
and be no JSON.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from _atsk8s import lib

from atsk8s.bridge.lines import Lines
from atsk8s.settings import LogFormat, LogLevel, Settings

STDERR: Final = 2
_LEVELS: Final = {  # our name, logging's number; their order is bridge.h's number
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


class _LineHandler(logging.Handler):
    """Makes each record one line."""

    UNFORMATTED: bytes  # a line in place of one that could not be made

    def __init__(self, line_of: Callable[[logging.LogRecord], bytes]) -> None:
        super().__init__()
        self._line_of = line_of

    def line(self, record: logging.LogRecord) -> bytes:
        try:
            return self._line_of(record)
        except Exception:
            return self.UNFORMATTED


class AtsHandler(_LineHandler):
    """Hands each record to Traffic Server as one line."""

    UNFORMATTED = b"a log record could not be formatted"

    def emit(self, record: logging.LogRecord) -> None:
        line = self.line(record)
        level = sum(record.levelno >= number for number in _LEVELS.values()) - 1
        lib.atsk_py_log(max(level, 0), line, len(line))


class StderrHandler(_LineHandler):
    """Writes each record to stderr as one line, in one write; the GIL is released meanwhile."""

    UNFORMATTED = b'{"level": "error", "id": "unformatted", "message": "a log record could not be formatted"}\n'

    def emit(self, record: logging.LogRecord) -> None:
        line = self.line(record)
        try:
            os.write(STDERR, line)
        except OSError:
            # Nobody reads it any more, or it is full and does not block: Traffic Server's own log has the line then.
            lib.atsk_py_log(2, line, len(line) - 1)


def install(settings: Settings) -> None:
    """Send what this package logs, and warnings of libraries, where and as the options say."""
    lines = Lines((settings.token.reveal(),))
    root = logging.getLogger()
    root.handlers[:] = [StderrHandler(lines.json) if settings.log_format is LogFormat.JSON else AtsHandler(lines.text)]
    root.setLevel(logging.WARNING)
    logging.getLogger("atsk8s").setLevel(_LEVELS[settings.log_level])
    # Libraries' own lines carry request URLs and retries; their errors reach us as exceptions and are told once.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    logging.captureWarnings(True)


def alert(text: str) -> None:
    """An error that ends the start: logged like any other, or, before there was a way to, by Traffic Server as it is."""
    handlers = logging.getLogger().handlers
    if handlers and isinstance(handlers[0], StderrHandler):
        logging.getLogger("atsk8s").error("cannot start", extra={"why": text})
    elif handlers:
        logging.getLogger("atsk8s").error(text)
    else:
        line = text.encode("utf-8", "backslashreplace")
        lib.atsk_py_log(3, line, len(line))
