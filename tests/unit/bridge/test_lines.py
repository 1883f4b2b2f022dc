"""Log lines: what a program reads of them, their bounds, and that no credential gets through, whatever field it is in."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from atsk8s.bridge.lines import LINE_BYTES_MAX, Lines, message_id
from atsk8s.settings import Token

STATIC = "st4tic-t0ken-of-a-kubeconfig"
JWT = ".".join(("eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ", "eyJpc3MiOiJrdWJlcm5ldGVzIn0", "c2lnbmF0dXJlLXNpZ25hdHVyZQ"))
KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
BASIC = "Basic dXNlcjpwYXNzd29yZA=="
PLANTED = (STATIC, JWT, KEY, f"Bearer {STATIC}", BASIC, KEY.replace("\n", "\\n"))
WHAT_SECRETS_HAVE = (STATIC, "c2lnbmF0dXJl", KEY.splitlines()[1], "dXNlcjpwYXNzd29yZA")


def record(message: str = "rejected", error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("atsk8s.test", logging.WARNING, __file__, 1, message, (), None)
    if error is not None:
        try:
            raise error
        except BaseException:
            made.exc_info = sys.exc_info()
    vars(made).update(fields)
    return made


def as_json(made: logging.LogRecord, *secrets: str) -> Mapping[str, Any]:
    encoded = Lines(secrets).json(made)
    assert encoded.endswith(b"}\n")
    assert encoded.count(b"\n") == 1
    line = json.loads(encoded)
    assert isinstance(line, dict)
    return line


def test_a_program_finds_level_time_id_object_and_reason() -> None:
    made = record(object="Ingress ns/shop", reason="Conflict", why='host "a" is taken', n=3)
    made.created = 1_800_000_000.5
    assert as_json(made) == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "warning",
        "id": "rejected",
        "message": "rejected",
        "logger": "atsk8s.test",
        "object": "Ingress ns/shop",
        "reason": "Conflict",
        "why": 'host "a" is taken',
        "n": 3,
    }


def test_people_find_the_same() -> None:
    made = record(object="Ingress ns/shop", reason="Conflict", why='host "a" is taken', n=3)
    assert Lines().text(made) == rb'rejected object="Ingress ns/shop" reason=Conflict why="host \"a\" is taken" n=3'


def test_an_id_is_the_fixed_text() -> None:
    assert message_id("option --state-dir: the last good state could not be written") == (
        "option-state-dir-the-last-good-state-could-not-be-written"
    )


def test_a_field_cannot_pass_for_one_of_the_lines_own() -> None:
    line = as_json(record(level="none", id="forged", logger="x"))
    assert (line["level"], line["id"], line["logger"]) == ("warning", "rejected", "atsk8s.test")
    assert (line["level_"], line["id_"], line["logger_"]) == ("none", "forged", "x")


@pytest.mark.parametrize("planted", PLANTED, ids=["static", "jwt", "key", "bearer", "basic", "escaped key"])
@pytest.mark.parametrize("where", ["message", "object", "reason", "why", "error", "long"])
def test_no_secret_gets_through_whatever_field_it_is_in(planted: str, where: str) -> None:
    match where:
        case "message":
            made = record(f"failed with {planted}")
        case "error":
            made = record(error=ValueError(f"bad value {planted}"))
        case "long":
            made = record(why="x" * 500 + planted)  # cut in its middle
        case field:
            made = record(**{field: f"before {planted} after"})
    for line in (Lines((STATIC,)).text(made), Lines((STATIC,)).json(made)):
        for secret in WHAT_SECRETS_HAVE:
            assert secret.encode() not in line, line


def test_an_object_shows_its_type_alone() -> None:
    @dataclass
    class Leaky:
        key: str = "hunter2-hunter2"

    made = record(who=Leaky(), token=Token("hunter2-hunter2"), data={"password": "hunter2-hunter2"}, raw=b"hunter2-hunter2")
    assert as_json(made)["who"] == "<Leaky>"
    for line in (Lines().text(made), Lines().json(made)):
        assert b"hunter2" not in line


def test_a_short_secret_does_not_blot_out_the_log() -> None:
    assert as_json(record("serving"), "", "s")["message"] == "serving"


NAMES = st.from_regex(r"[a-z_]{1,40}", fullmatch=True)


@given(message=st.text(max_size=3000), value=st.text(max_size=3000), name=NAMES)
def test_a_line_is_one_line_bounded_and_what_it_says_it_is(message: str, value: str, name: str) -> None:
    made = record(message.replace("%", "%%"), **{name: value})
    lines = Lines()
    text, encoded = lines.text(made), lines.json(made)
    assert b"\n" not in text
    assert len(text) <= LINE_BYTES_MAX
    assert len(encoded) <= LINE_BYTES_MAX
    assert json.loads(encoded)["level"] == "warning"


def test_a_line_that_would_be_too_long_says_what_matters() -> None:
    made = record("too much", ValueError("\x00" * 20_000), **{f"field{n}": "\x00" * 600 for n in range(8)})
    line = as_json(made)
    assert (line["message"], line["truncated"]) == ("too much", True)
