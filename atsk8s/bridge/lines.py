"""A log record as one line: text for people, JSON for programs.  Pure; `log` hands the lines on.

What varies is in fields, and a field is text or a number: anything else shows its type alone, because the `str` of an object may
hold what no log may.  Values are bounded and escaped, so that an object's name can neither forge a line nor flood the log.  As a
last line of defence whatever looks like a credential is blotted out, wherever it stands.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, TypeAlias

VALUE_CHARS_MAX: Final = 512
TRACEBACK_CHARS_MAX: Final = 8 * 1024  # its end, which says what went wrong
LINE_BYTES_MAX: Final = 16 * 1024
SECRET_CHARS_MIN: Final = 6  # a shorter one would blot out what it does not mean
BLOT: Final = "redacted"

Plain: TypeAlias = str | int | float | bool | None

_PLAIN_TEXT: Final = re.compile(r"[A-Za-z0-9_.:/@%+,\[\]()*-]+")
_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED: Final = frozenset({"time", "level", "id", "message", "logger", "traceback"})
_CREDENTIALS: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"  # a JSON Web Token, as service accounts have
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{4,}"
    r"|(?<=[Bb]asic )[A-Za-z0-9+/=]{8,}",
    re.DOTALL,
)


class Lines:
    """Makes lines.

    Args:
        secrets: texts that are never shown; empty and very short ones are passed over.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(sorted({s for s in secrets if len(s) >= SECRET_CHARS_MIN}, key=len, reverse=True))

    def text(self, record: logging.LogRecord) -> bytes:
        """`message name=value ...` on one line; a traceback follows as one more field."""
        parts = ["".join(char if char.isprintable() else " " for char in self._clean(record.getMessage()))]
        parts += [f"{name}={_quoted(value)}" for name, value in self._fields(record)]
        if traceback := self._traceback(record):
            parts.append(f"traceback={json.dumps(traceback)}")
        return " ".join(parts).encode("utf-8", "backslashreplace")[:LINE_BYTES_MAX]

    def json(self, record: logging.LogRecord) -> bytes:
        """An object on one line, with its newline: time (RFC 3339, UTC), level, id, message, logger, and the record's own fields.

        `id` is the fixed text of the message in lower case and hyphens: what a program tells messages apart by.
        """
        message = self._clean(record.getMessage())
        line: dict[str, Plain] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "id": message_id(self._clean(str(record.msg))),
            "message": _bounded(message),
            "logger": record.name,
        }
        for name, value in self._fields(record):
            line[f"{name}_" if name in _RESERVED else name] = _bounded(value) if isinstance(value, str) else value
        if traceback := self._traceback(record):
            line["traceback"] = traceback
        encoded = _encoded(line)
        if len(encoded) > LINE_BYTES_MAX:  # cut bytes would be no JSON: what is least missed goes
            line = {name: value for name, value in line.items() if name in _RESERVED - {"traceback"}}
            encoded = _encoded({**line, "truncated": True})
        return encoded

    def _fields(self, record: logging.LogRecord) -> Iterator[tuple[str, Plain]]:
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS:
                yield name, self._clean(str(value)) if isinstance(value, str) else _plain(value)

    def _traceback(self, record: logging.LogRecord) -> str:
        if not record.exc_info or record.exc_info[0] is None:
            return ""
        return self._clean(logging.Formatter().formatException(record.exc_info))[-TRACEBACK_CHARS_MAX:]

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, BLOT)
        return _CREDENTIALS.sub(BLOT, text)


def message_id(message: str) -> str:
    """See `Lines.json`."""
    return "-".join(re.findall(r"[a-z0-9]+", message[:120].lower()))


def _plain(value: object) -> Plain:
    return value if value is None or isinstance(value, bool | int | float) else f"<{type(value).__name__}>"


def _bounded(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}..."


def _quoted(value: Plain) -> str:
    text = _bounded(str(value))
    return text if _PLAIN_TEXT.fullmatch(text) else json.dumps(text)


def _encoded(line: dict[str, Plain]) -> bytes:
    # ASCII: no byte of a line can be anything but what JSON says, whatever a terminal makes of the rest.
    return json.dumps(line, allow_nan=True).encode("ascii", "replace") + b"\n"
