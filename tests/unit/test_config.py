"""Options: precedence of their origins, every parser's bounds, and errors that say what to do."""

import pytest

from atsk8s.config import OPTIONS, options_table, parse_settings
from atsk8s.errors import SettingsError
from atsk8s.settings import LoadBalance, Settings, Tenancy, Token


def test_defaults_are_the_settings_of_no_arguments() -> None:
    assert parse_settings([], {}) == Settings()


def test_the_flag_wins_over_our_variable_which_wins_over_the_ancestors() -> None:
    environ = {"INGRESS_CLASS": "a", "TS_INGRESS_CLASSES": "b"}
    assert parse_settings([], environ).ingress_classes == ("a",)
    environ["ATSK8S_INGRESS_CLASS"] = "c"
    assert parse_settings([], environ).ingress_classes == ("c",)
    assert parse_settings(["--ingress-class=d"], environ).ingress_classes == ("d",)


def test_where_settings_of_the_proxy_are_looked_for() -> None:
    assert parse_settings([], {}).own_namespaces == ("default",)
    environ = {"POD_NAMESPACE": "proxy", "TS_CONFIGMAP": "elsewhere/config"}
    assert parse_settings([], environ).own_namespaces == ("proxy", "elsewhere")
    assert parse_settings(["--configmap=proxy/config"], environ).own_namespaces == ("proxy",)


def test_lists_take_commas_and_blanks_and_ignore_order() -> None:
    assert parse_settings(["--watch-namespaces=b, a,b"], {}) == parse_settings(["--watch-namespaces=a b"], {})


def test_ingresses_without_class_are_ours_by_default_only_with_manifests() -> None:
    assert parse_settings(["--manifests=/m"], {}).watch_ingress_without_class
    assert not parse_settings(["--manifests=/m", "--watch-ingress-without-class=false"], {}).watch_ingress_without_class
    assert not parse_settings([], {}).watch_ingress_without_class
    assert parse_settings(["--watch-ingress-without-class"], {}).watch_ingress_without_class


@pytest.mark.parametrize(
    ("arg", "field", "value"),
    [
        ("--default-certificate=ns/name", "default_certificate", ("ns", "name")),
        ("--default-backend=ns/name:80", "default_backend", ("ns", "name", 80)),
        ("--default-backend=ns/name:http", "default_backend", ("ns", "name", "http")),
        ("--configmap=ns/name", "configmap", ("ns", "name")),
        ("--pod-namespace=ns", "pod_namespace", "ns"),
        ("--tenancy=strict", "tenancy", Tenancy.STRICT),
        ("--cache=on", "cache", True),
        ("--admin=off", "admin", None),
        ("--admin=[::1]:0", "admin", ("::1", 0)),
        ("--connect-timeout-ms=250", "connect_timeout_ms", 250),
        ("--load-balance=least-request", "load_balance", LoadBalance.LEAST_REQUEST),
        ("--retry-tries=8", "retry_tries", 8),
        ("--retry-timeout-ms=0", "retry_timeout_ms", 0),
        ("--retry-budget-percent=100", "retry_budget_percent", 100),
        ("--read-timeout-ms=2592000000", "read_timeout_ms", 2_592_000_000),
        ("--send-timeout-ms=0", "send_timeout_ms", 0),
        ("--request-timeout-ms=1500", "request_timeout_ms", 1500),
        ("--body-size=8M", "body_size", 8 << 20),
        ("--session-key-file=/run/key", "session_key_file", "/run/key"),
        ("--health-max-failures=0", "health_max_failures", 0),
        ("--health-ejection-ms=500", "health_ejection_ms", 500),
        ("--health-panic-percent=0", "health_panic_percent", 0),
        ("--zone=europe-west1_b", "zone", "europe-west1_b"),
        ("--node-name=n1.example", "node_name", "n1.example"),
    ],
)
def test_values(arg: str, field: str, value: object) -> None:
    assert getattr(parse_settings([arg], {}), field) == value


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--nonsense=1"], "unknown option '--nonsense'; there are --kubeconfig"),
        (["kubeconfig"], "unknown option 'kubeconfig'"),
        (["--kubeconfig"], "--kubeconfig has no value; write --kubeconfig=FILE"),
        (["--kubeconfig=relative"], "not an absolute path"),
        (["--manifests=/a", "--manifests=/b"], "--manifests is given twice, as '/a' and as '/b'"),
        (["--manifests=/a", "--kubeconfig=/b"], "--kubeconfig and --manifests exclude each other"),
        (["--tenancy=loose"], "none of shared, strict"),
        (["--load-balance=ewma"], "none of round-robin, least-request, random, hash"),
        (["--retry-tries=0"], "not a whole number from 1 to 8; expected N"),
        (["--retry-tries=9"], "from 1 to 8"),
        (["--retry-budget-percent=-1"], "from 0 to 100"),
        (["--read-timeout-ms=2592000001"], "not a whole number of milliseconds from 0 to 2592000000"),
        (["--request-timeout-ms=1s"], "milliseconds"),
        (["--body-size=8mb"], "not a size such as 65536, 64k, 8m or 1g"),
        (["--session-key-file=key"], "not an absolute path"),
        (["--health-ejection-ms=0"], "from 1 to 600000"),
        (["--health-panic-percent=101"], "from 0 to 100"),
        (["--zone=a/b"], "not a name"),
        (["--node-name="], "not a name"),
        (["--default-backend=name:80"], "not NAMESPACE/NAME"),
        (["--default-backend=ns/name"], "NAMESPACE/NAME:PORT"),
        (["--default-backend=ns/name:65536"], "port outside 1..65535"),
        (["--admin=localhost:1"], "literal IP address"),
        (["--admin=127.0.0.1:99999"], "port outside"),
        (["--trusted-proxies=10.0.0.1/8"], "no address range"),
        (["--connect-timeout-ms=0"], "milliseconds"),
        (["--connect-timeout-ms=²"], "milliseconds"),
        (["--health-path=health"], "plain URL path"),
        (["--health-path=/" + "x" * 255], "at most 255"),
        (["--trusted-proxies=" + ",".join(f"10.0.{i // 128}.{i % 128}" for i in range(257))], "at most 256"),
        (["--cache=perhaps"], "neither true nor false"),
        (["--server=localhost"], "https://"),
        (["--log-level=" + "x" * 5000], "5000 bytes long"),
    ],
)
def test_a_bad_option_says_which_and_what_to_do(args: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(args, {})

    assert says in str(error.value)


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(SettingsError, match="environment variable ATSK8S_CACHE"):
        parse_settings([], {"ATSK8S_CACHE": "perhaps"})


def test_the_token_is_no_flag_and_is_never_shown() -> None:
    with pytest.raises(SettingsError, match="ATSK8S_TOKEN") as error:
        parse_settings(["--token=s3cret"], {})
    assert "s3cret" not in str(error.value)
    settings = parse_settings([], {"TS_TOKEN": "s3cret"})
    assert settings.token.reveal() == "s3cret"
    assert "s3cret" not in repr(settings) + str(settings.token)


def test_every_option_sets_a_field_that_exists() -> None:
    assert {option.field for option in OPTIONS} == set(Settings.__dataclass_fields__)


def test_an_oversized_secret_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings([], {"ATSK8S_TOKEN": "s" * 5000})
    assert "sss" not in str(error.value)


def test_the_table_has_a_row_an_option() -> None:
    assert len(options_table().splitlines()) == 2 + len(OPTIONS)


def test_equal_tokens_are_equal() -> None:
    assert Token("a") == Token("a") != Token("b")
