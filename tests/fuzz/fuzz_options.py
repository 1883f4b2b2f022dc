"""The plugins' options: each line is a flag, or a variable of the environment (`NAME=value`)."""

from __future__ import annotations

from atsk8s.config import OPTIONS, parse_settings
from atsk8s.errors import SettingsError
from tests.fuzz.target import Target

_FLAGS = tuple(f"--{option.name}=" for option in OPTIONS if option.flag)
_VARIABLES = tuple(f"{variable}=" for option in OPTIONS for variable in (option.variable, *option.ancestors))
_VALUES = (
    "true",
    "off",
    "strict",
    "ns/name",
    "ns/name:80",
    "10.0.0.0/8",
    "fd00::/8",
    "[::1]:9464",
    "https://a",
    "/a",
    "info",
    "3000",
)
_TOKEN_CHARS_MIN = 12  # a shorter one may stand in a message by chance


def check(data: bytes) -> None:
    """There are settings, which hold together, or a message that says what to do and does not show the token."""
    flags: list[str] = []
    environ: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        name, equals, value = line.partition("=")
        if equals and not line.startswith("-"):
            environ[name] = value
        elif line:
            flags.append(line)
    token = environ.get("ATSK8S_TOKEN", "")
    try:
        settings = parse_settings(flags, environ)
    except SettingsError as error:
        shown = str(error)
        is_elsewhere = any(
            token in line for line in (*flags, *(value for name, value in environ.items() if name != "ATSK8S_TOKEN"))
        )
        assert len(token) < _TOKEN_CHARS_MIN or is_elsewhere or token not in shown, "the message shows the token"
        assert shown.strip()
        return
    assert settings == parse_settings(flags, environ)
    assert hash(settings) == hash(parse_settings(flags, environ))
    assert len(token) < _TOKEN_CHARS_MIN or repr(settings.token) == "Token(redacted)"


TARGET = Target(check=check, words=(*_FLAGS, *_VARIABLES, *_VALUES), size_max=2048)
