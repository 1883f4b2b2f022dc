"""Which records a ConfigMap may set, and to what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atsk8s.cluster_settings.records import PREFIX, REFUSED, TEXTS, Record, RecordType, check_name, check_value
from atsk8s.errors import Reason, RejectError

PLUGIN_C = Path(__file__).resolve().parents[3] / "plugin_c"
NUMBER = "proxy.config.log.rolling_interval_sec"
TEXT = "proxy.config.http.response_via_str"
# What the plugin sets for each request (ts/apidefs.h, TSOverridableConfigKey) and which record that is.
OVERRIDDEN = {
    "TS_CONFIG_HTTP_CACHE_HTTP": "http.cache.http",
    "TS_CONFIG_HTTP_INSERT_SQUID_X_FORWARDED_FOR": "http.insert_squid_x_forwarded_for",
    "TS_CONFIG_HTTP_PARENT_PROXY_TOTAL_CONNECT_ATTEMPTS": "http.parent_proxy.total_connect_attempts",
    "TS_CONFIG_HTTP_PER_PARENT_CONNECT_ATTEMPTS": "http.parent_proxy.per_parent_connect_attempts",
    "TS_CONFIG_HTTP_SERVER_SESSION_SHARING_MATCH": "http.server_session_sharing.match",
    "TS_CONFIG_HTTP_TRANSACTION_ACTIVE_TIMEOUT_IN": "http.transaction_active_timeout_in",
    "TS_CONFIG_HTTP_TRANSACTION_NO_ACTIVITY_TIMEOUT_IN": "http.transaction_no_activity_timeout_in",
    "TS_CONFIG_HTTP_UNCACHEABLE_REQUESTS_BYPASS_PARENT": "http.uncacheable_requests_bypass_parent",
    "TS_CONFIG_PARENT_FAILURES_UPDATE_HOSTDB": "http.parent_proxy.mark_down_hostdb",
    "TS_CONFIG_URL_REMAP_PRISTINE_HOST_HDR": "url_remap.pristine_host_hdr",
    "TS_CONFIG_WEBSOCKET_ACTIVE_TIMEOUT": "websocket.active_timeout",
    "TS_CONFIG_WEBSOCKET_NO_ACTIVITY_TIMEOUT": "websocket.no_activity_timeout",
    "TSHttpTxnActiveTimeoutSet": "http.transaction_active_timeout_out",
    "TSHttpTxnConnectTimeoutSet": "http.connect_attempts_timeout",
    "TSHttpTxnNoActivityTimeoutSet": "http.transaction_no_activity_timeout_out",
}


def record(kind: RecordType = RecordType.INT, expression: str = "", **other: object) -> Record:
    fields = {"is_dynamic": True, "is_writable": True, "value": "0", "source": 1} | other
    return Record(type=kind, expression=expression, **fields)  # type: ignore[arg-type]


def test_what_the_plugin_sets_for_each_request_is_refused() -> None:
    """A ConfigMap's value would have no effect there, and be believed to have one."""
    code = "".join(path.read_text(encoding="utf-8") for path in PLUGIN_C.rglob("*.c"))
    used = set(re.findall(r"\bTS_CONFIG_[A-Z0-9_]+|\bTSHttpTxn(?:Active|Connect|NoActivity)TimeoutSet\b", code))
    assert used == set(OVERRIDDEN), "tell OVERRIDDEN which record it is, and records.REFUSED what to use instead"
    for name in OVERRIDDEN.values():
        if name != "http.server_session_sharing.match":  # a text, and not among those that may be set
            with pytest.raises(RejectError):
                check_name(PREFIX + name)
    assert PREFIX + "http.server_session_sharing.match" not in TEXTS


@pytest.mark.parametrize(
    "name",
    [
        "proxy.config.admin.user_id",
        "proxy.config.alarm.bin",
        "proxy.config.plugin.plugin_dir",
        "proxy.config.url_remap.remap_required",
        "proxy.config.http.push_method_enabled",
        "proxy.config.http.parent_proxy.retry_time",
    ],
)
def test_refused_by_name(name: str) -> None:
    with pytest.raises(RejectError) as raised:
        check_name(name)
    assert raised.value.reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    "name", ["proxy.config.", "proxy.config..x", "proxy.config.a b", "proxy.config.ä", "proxy.config.x\n", PREFIX + "x" * 65]
)
def test_no_names(name: str) -> None:
    with pytest.raises(RejectError) as raised:
        check_name(name)
    assert raised.value.reason is Reason.UNKNOWN_SETTING


def test_refused_prefixes_end_in_a_dot() -> None:
    """ "plugin." must not refuse "pluginless", and "srv_enabled" must not let "srv_enabled.x" pass for it."""
    check_name("proxy.config.pluginless")
    assert all(name.startswith(PREFIX) for name in REFUSED)


def test_texts_name_no_file() -> None:
    assert not [name for name in TEXTS if re.search(r"file|path|dir|bin|script|cert|key|socket", name.replace("via_str", ""))]


@pytest.mark.parametrize(
    ("expression", "text", "value"),
    [
        ("", "0", "0"),
        ("", " 12\n", "12"),
        ("", "0x1F", "31"),
        ("", "2K", "2048"),
        ("^[0-9]+$", "3M", "3145728"),
        ("[0-4]", "4", "4"),
        ("[10-3600000]", "10", "10"),
        ("^-?[0-9]+$", "-1", "-1"),
        ("^-1|[0-9]+$", "-1", "-1"),
        ("^0*[1-9][0-9]*$", "007", "7"),
        ("", "9223372036854775807", "9223372036854775807"),
    ],
)
def test_numbers(expression: str, text: str, value: str) -> None:
    assert check_value(NUMBER, record(expression=expression), text) == value


@pytest.mark.parametrize(
    ("expression", "text", "fault"),
    [
        ("", "", "is no whole number"),
        ("", "abc", "is no whole number"),
        ("", "1.5", "is no whole number"),
        ("", "1 2", "is no whole number"),
        ("", "5 # why", "is no whole number"),
        ("", "+1", "is no whole number"),
        ("", "-0x1", "is no whole number"),
        ("", "1k", "is no whole number"),
        ("", "\u0661", "is no whole number"),  # a digit to Unicode, 0 to Traffic Server
        ("", "-1", "0 or more"),
        ("", "9223372036854775808", "out of range"),
        ("", "9007199254740992K", "out of range"),
        ("", "9" * 30, "is no whole number"),
        ("[0-4]", "5", "expected 0 to 4"),
        ("[0-4]", "-1", "expected 0 to 4"),
        ("^[0-9]+$", "-1", "does not match ^[0-9]+$"),
        ("^0*[1-9][0-9]*$", "0", "does not match"),
        ("^([0-9]|1[0-4])$", "15", "does not match"),
        ("(", "1", "does not match"),  # an expression that Python does not know refuses
    ],
)
def test_what_would_become_another_number_is_refused(expression: str, text: str, fault: str) -> None:
    with pytest.raises(RejectError) as raised:
        check_value(NUMBER, record(expression=expression), text)
    assert raised.value.reason is Reason.INVALID_SETTING
    assert fault in raised.value.message


def test_minus_one_where_it_means_none() -> None:
    assert check_value(NUMBER, record(value="-1"), "-1") == "-1"
    with pytest.raises(RejectError):
        check_value(NUMBER, record(value="-1"), "-2")


@pytest.mark.parametrize(("text", "value"), [("0.5", "0.5"), ("-1", "-1"), (" 2 ", "2")])
def test_fractions(text: str, value: str) -> None:
    assert check_value(NUMBER, record(RecordType.FLOAT), text) == value


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "1e400", "0,5", ".5", "9" * 40])
def test_no_fractions(text: str) -> None:
    with pytest.raises(RejectError):
        check_value(NUMBER, record(RecordType.FLOAT), text)


def test_texts() -> None:
    assert check_value(TEXT, record(RecordType.STRING), " ATS ") == "ATS"
    assert (
        check_value("proxy.config.http.per_server.connection.match", record(RecordType.STRING, "^(?:ip|host|both|none)$"), "ip")
        == "ip"
    )
    assert check_value("proxy.config.proxy_name", record(RecordType.STRING, "^[^[:space:]]+$"), "a") == "a"
    for text, expression in (("a\r\nX-Evil: 1", ""), ("\x7f", ""), ("\xe9", ""), ("x" * 1025, ""), ("a b", "^[^[:space:]]+$")):
        with pytest.raises(RejectError) as raised:
            check_value(TEXT, record(RecordType.STRING, expression), text)
        assert raised.value.reason is Reason.INVALID_SETTING


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        (NUMBER, record(is_dynamic=False), Reason.UNSUPPORTED),
        (NUMBER, record(is_writable=False), Reason.UNSUPPORTED),
        ("proxy.config.ssl.keylog_file", record(RecordType.STRING), Reason.FORBIDDEN),
        ("proxy.config.dns.nameservers", record(RecordType.STRING), Reason.FORBIDDEN),
    ],
)
def test_what_cannot_be_set(name: str, found: Record, reason: Reason) -> None:
    with pytest.raises(RejectError) as raised:
        check_value(name, found, "1")
    assert raised.value.reason is reason
