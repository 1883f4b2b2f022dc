"""layout.py is atsk_format.h: every struct's fields in order and width, every constant, every enum."""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from pathlib import Path
from struct import Struct
from typing import Final

import pytest

from atsk8s import values
from atsk8s.compile import layout
from atsk8s.model import normalise, policies
from atsk8s.model.ir import EndpointFlags, Place

PLUGIN_C: Final = Path(__file__).resolve().parents[2] / "plugin_c"
FORMAT_H: Final = (PLUGIN_C / "blob/atsk_format.h").read_text()
BASE_H: Final = (PLUGIN_C / "base/atsk_base.h").read_text()
PUBLISH_H: Final = (PLUGIN_C / "table/publish.h").read_text()
REQUEST_H: Final = (PLUGIN_C / "table/request.h").read_text()

WIDTHS: Final = {"uint8_t": "B", "uint16_t": "H", "uint32_t": "I", "uint64_t": "Q"}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def fields_of(struct: str) -> tuple[list[str], str]:
    """Names, nested ones as "outer_inner", and format characters."""
    body = re.search(rf"^struct {struct} \{{(.*?)^\}};", without_comments(FORMAT_H), re.DOTALL | re.MULTILINE)
    assert body is not None, f"no struct {struct} in atsk_format.h"
    names: list[str] = []
    formats = ""
    declarations = re.findall(r"^\s*(struct \w+|\w+) (\w+)(?:\[(\d+)\])?;", body[1], re.MULTILINE)
    assert len(declarations) == body[1].count(";"), f"a field of struct {struct} is written in a way that this test does not know"
    for kind, name, count in declarations:
        if kind.startswith("struct "):
            inner, inner_formats = fields_of(kind.removeprefix("struct "))
            names += [f"{name}_{field}" for field in inner]
            formats += inner_formats
        elif count and kind != "uint8_t":
            names += [f"{name}_{i}" for i in range(int(count))]
            formats += WIDTHS[kind] * int(count)
        else:
            names.append(name)
            formats += f"{count}s" if count else WIDTHS[kind]
    return names, formats


def enum_of(name: str, text: str) -> dict[str, int]:
    body = re.search(rf"enum {name} \{{(.*?)\}};?", without_comments(text), re.DOTALL)
    assert body is not None, f"no enum {name}"
    return {member: int(value) for member, value in re.findall(r"(\w+)\s*=\s*(\d+)u?", body[1])}


def define_of(name: str, text: str) -> int:
    value = re.search(rf"^#define {name} (.*)$", without_comments(text), re.MULTILINE)
    assert value is not None, f"no #define {name}"
    expression = re.sub(r"\b(0x[0-9A-Fa-f]+|\d+)u\b", r"\1", value[1]).strip()
    assert re.fullmatch(r"[0-9A-Fa-fx() <]+", expression)
    left, _, right = expression.strip("()").partition("<<")
    return int(left, 0) << int(right or "0", 0)


@pytest.mark.parametrize(
    ("struct", "record", "packed"),
    [
        ("atsk_blob_header", layout.Header, layout.HEADER),
        ("atsk_blob_node", layout.Node, layout.NODE),
        ("atsk_blob_rule", layout.RuleRecord, layout.RULE),
        ("atsk_blob_backend", layout.BackendRecord, layout.BACKEND),
        ("atsk_blob_policy", layout.PolicyRecord, layout.POLICY),
        ("atsk_policy_balance", layout.BalanceRecord, layout.BALANCE),
        ("atsk_policy_affinity", layout.AffinityRecord, layout.AFFINITY),
        ("atsk_policy_retry", layout.RetryRecord, layout.RETRY),
        ("atsk_policy_timeouts", layout.TimeoutsRecord, layout.TIMEOUTS),
        ("atsk_policy_limits", layout.LimitsRecord, layout.LIMITS),
        ("atsk_policy_body", layout.BodyRecord, layout.BODY),
        ("atsk_endpoint_record", layout.EndpointRecord, layout.ENDPOINT),
    ],
)
def test_structs(struct: str, record: type[tuple[object, ...]], packed: Struct) -> None:
    names, formats = fields_of(struct)
    size = re.search(rf"sizeof\(struct {struct}\) == (\d+)", FORMAT_H)

    assert list(record._fields) == names  # type: ignore[attr-defined]
    assert size is not None
    assert packed.size == int(size[1]) == Struct(f"<{formats}").size == Struct(f"@{formats}").size
    # The same fields at the same offsets: what Python packs, C's widths unpack.
    assert Struct(f"<{formats}").format.replace("<", "") == re.sub(r"(\d+)([A-Z])", lambda m: m[2] * int(m[1]), packed.format[1:])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ATSK_BLOB_MAGIC", layout.BLOB_MAGIC, FORMAT_H),
        ("ATSK_BLOB_VERSION", layout.BLOB_VERSION, FORMAT_H),
        ("ATSK_NONE", layout.NONE, FORMAT_H),
        ("ATSK_BLOB_MAX", layout.BLOB_MAX, FORMAT_H),
        ("ATSK_DEPTH_MAX", layout.DEPTH_MAX, FORMAT_H),
        ("ATSK_RETRY_TRIES_MAX", values.TRIES_MAX, FORMAT_H),
        ("ATSK_RETRY_STATUSES_MAX", policies.STATUSES_MAX, FORMAT_H),
        ("ATSK_HASH_NAME_MAX", policies.HASH_NAME_MAX, FORMAT_H),
        ("ATSK_COOKIE_NAME_MAX", policies.COOKIE_NAME_MAX, FORMAT_H),
        ("ATSK_COOKIE_ATTRIBUTES_MAX", policies.COOKIE_ATTRIBUTES_MAX, FORMAT_H),
        ("ATSK_LOAD_PERCENT_MIN", policies.LOAD_PERCENT_MIN, FORMAT_H),
        ("ATSK_LOAD_PERCENT_MAX", policies.LOAD_PERCENT_MAX, FORMAT_H),
        ("ATSK_EXEMPT_MAX", policies.EXEMPT_MAX, FORMAT_H),
        ("ATSK_EXEMPT_SIZE", layout.EXEMPT.size, FORMAT_H),
        ("ATSK_HOST_MAX", normalise.HOST_BYTES_MAX, BASE_H),
        ("ATSK_LABEL_MAX", normalise.LABEL_BYTES_MAX, BASE_H),
        ("ATSK_PATH_MAX", normalise.PATH_BYTES_MAX, BASE_H),
    ],
)
def test_constants(name: str, value: int, text: str) -> None:
    assert define_of(name, text) == value


def python_enum(kind: type[IntEnum | IntFlag], prefix: str) -> dict[str, int]:
    return {prefix + member.name: int(member) for member in kind}


def test_enums() -> None:
    faults = enum_of("atsk_request_fault", REQUEST_H)
    assert faults.pop("ATSK_REQUEST_FINE") == 0
    assert enum_of("atsk_rule_action", FORMAT_H) == python_enum(layout.RuleAction, "ATSK_ACTION_")
    assert enum_of("atsk_endpoint_family", FORMAT_H) == python_enum(layout.EndpointFamily, "ATSK_FAMILY_")
    assert enum_of("atsk_endpoint_flags", FORMAT_H) == python_enum(EndpointFlags, "ATSK_ENDPOINT_")
    assert enum_of("atsk_policy_kind", FORMAT_H) == python_enum(policies.PolicyKind, "ATSK_POLICY_")
    assert enum_of("atsk_balance", FORMAT_H) == python_enum(policies.Algorithm, "ATSK_BALANCE_")
    assert enum_of("atsk_hash_source", FORMAT_H) == python_enum(policies.HashSource, "ATSK_HASH_")
    assert enum_of("atsk_cookie_secure", FORMAT_H) == python_enum(policies.CookieSecure, "ATSK_SECURE_")
    assert enum_of("atsk_retry_on", FORMAT_H) == python_enum(policies.RetryOn, "ATSK_RETRY_")
    assert enum_of("atsk_vhost_place", PUBLISH_H) == python_enum(Place, "ATSK_PLACE_")
    assert faults == python_enum(normalise.RequestFault, "ATSK_REQUEST_")


def test_every_struct_is_covered() -> None:
    blob = {"atsk_blob_str", "atsk_blob_header", "atsk_blob_node", "atsk_blob_rule", "atsk_blob_backend", "atsk_blob_policy"}
    of_kinds = {f"atsk_policy_{kind.name.lower()}" for kind in policies.PolicyKind}

    assert set(re.findall(r"^struct (\w+) \{", FORMAT_H, re.MULTILINE)) == blob | of_kinds | {"atsk_endpoint_record"}
