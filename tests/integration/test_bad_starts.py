"""A start that cannot work says which option or file is at fault, what is wrong and what to do, and ends; the rest starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import app, ingress, path

# What Traffic Server ends with: 33 after TSEmergency in a global plugin, 70 when remap.config does not load.
ENDED_BY_SSL_PLUGIN, ENDED_BY_REMAP_PLUGIN = 33, 70
END_TIMEOUT_S = 40.0
SECRET = "s3cr3t-t0ken-value"


@pytest.fixture
def directory() -> Generator[Path]:
    """For a server of the test's own, made already so that the test can put files in."""
    with ats_directory() as made:
        made.mkdir(mode=0o755)
        yield made


def kubeconfig(directory: Path, text: str | None = None, *, mode: int = 0o644, **user: str) -> Path:
    """Write a kubeconfig, or `text` in its place, for an API server that is not there."""
    path = directory / "kubeconfig"
    config = {
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": user}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    path.write_text(json.dumps(config) if text is None else text)
    path.chmod(mode)
    return path


def over(build: Build, directory: Path, *arguments: str, **options: object) -> Ats:
    """A server with just these plugin arguments."""
    return Ats(build, directory, options=Options(manifests=False, plugin_options=arguments, **options))  # type: ignore[arg-type]


def expect_end(ats: Ats, *wanted: str, status: int = ENDED_BY_SSL_PLUGIN) -> None:
    """Start, and find that it ends by itself with a log line that has every pattern; no crash, no traceback, no secret."""
    child = ats.start()
    processes.await_condition("the start has failed", lambda: child.status is not None, timeout_s=END_TIMEOUT_S)
    log = ats.log()
    assert child.status == status, log
    lines = [line for line in log.splitlines() if re.search("ERROR|EMERGENCY|FATAL", line)]
    assert any(all(re.search(pattern, line) for pattern in wanted) for line in lines), f"no line has {wanted}:\n{log}"
    assert "Traceback" not in log
    assert SECRET not in log


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--kubeconfg=/x"], ("unknown option '--kubeconfg'", "--kubeconfig")),
        (["kubeconfig=/x"], ("unknown option 'kubeconfig'",)),
        (["--tenancy=loose"], ("option --tenancy", "'loose' is none of shared, strict")),
        (["--tenancy"], ("option --tenancy has no value", "--tenancy=shared")),
        (["--tenancy=shared", "--tenancy=strict"], ("option --tenancy is given twice", "'shared'", "'strict'", "keep one")),
        (["--cache=maybe"], ("option --cache", "'maybe' is neither true nor false")),
        (["--admin=localhost:80"], ("option --admin", "literal IP address", "127.0.0.1:9464")),
        (["--admin=127.0.0.1:99999"], ("option --admin", "port outside 0..65535")),
        (["--start-timeout-ms=0"], ("option --start-timeout-ms", "1 to 600000")),
        (["--trusted-proxies=10.0.0.0/33"], ("option --trusted-proxies", "CIDR")),
        (["--default-certificate=name"], ("option --default-certificate", "NAMESPACE/NAME")),
        (["--default-backend=ns/name"], ("option --default-backend", "NAMESPACE/NAME:PORT")),
        (["--health-path=alive"], ("option --health-path", "is not a plain URL path")),
        ([f"--token={SECRET}"], ("option --token is a secret", "ATSK8S_TOKEN")),
        (["--manifests=relative"], ("option --manifests", "is not an absolute path")),
        (["--manifests=/nowhere/at/all"], ("--manifests=/nowhere/at/all", "no such directory", "create it")),
        (["--manifests=/etc/passwd"], ("--manifests=/etc/passwd", "no directory", "name the directory")),
        (["--manifests=/tmp", "--kubeconfig=/x"], ("--kubeconfig and --manifests exclude each other", "keep one")),
        (["--kubeconfig=/nowhere/config"], ("--kubeconfig", "/nowhere/config", "no such file")),
        (["--kubeconfig=/etc"], ("--kubeconfig", "is a directory")),
        ([], ("no --kubeconfig and no --manifests", "KUBERNETES_SERVICE_HOST")),
        (["--venv=/nowhere"], ("--venv", "/nowhere/bin/python3", "No such file or directory", "--venv=DIR")),
        (["--venv=venv"], ("--venv=venv is not an absolute path",)),
        (["--venv=/usr"], ("--venv", "virtual environment must be of Python 3.11")),
        (["--health-path=/" + "x" * 800], ("option --health-path",)),
    ],
    ids=lambda value: "+".join(value)[:40] if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be(build: Build, directory: Path, arguments: list[str], wanted: tuple[str, ...]) -> None:
    admin = [] if any(one.startswith("--admin") for one in arguments) else ["--admin=off"]
    expect_end(over(build, directory, *arguments, *admin), *wanted)


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("ATSK8S_TENANCY", "loose", ("environment variable ATSK8S_TENANCY", "'loose'")),
        ("TS_SERVER", "api.test", ("environment variable TS_SERVER", "https://")),
        ("ATSK8S_VENV", "/nowhere", ("/nowhere/bin/python3",)),
        ("TS_TOKEN", f"{SECRET}\nX: y", ("TS_TOKEN", "no HTTP header")),
    ],
)
def test_a_variable_that_cannot_be(build: Build, directory: Path, variable: str, value: str, wanted: tuple[str, ...]) -> None:
    environment = {variable: value, **({"TS_SERVER": "https://127.0.0.1:1"} if variable == "TS_TOKEN" else {})}
    expect_end(over(build, directory, "--admin=off", environment=environment), *wanted)


def test_without_the_ssl_plugin_remap_config_says_it(build: Build, directory: Path) -> None:
    """The remap plugin alone: Traffic Server's own error about the rule carries our words."""
    ats = over(build, directory, "--tenancy=loose", with_ssl=False)
    expect_end(ats, r"remap\.config line 1", "option --tenancy: 'loose'", status=ENDED_BY_REMAP_PLUGIN)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: [", ("is not YAML in line 2",)),
        ("", ("map with clusters, users and contexts",)),
        ("[1, 2]", ("map with clusters, users and contexts",)),
        ("{}", ("current-context is not set", "kubectl config use-context")),
        ("{current-context: a, contexts: 7}", ("contexts has no entry named 'a'",)),
        ("[" * 100_000, ("--kubeconfig",)),
        ("a: &a [x,x,x,x]\nb: &b [*a,*a,*a]\n" * 2, ("--kubeconfig",)),
        ("\x00\x01\x02", ("is not YAML",)),
        ("x" * (5 << 20), ("more than 4194304 bytes",)),
    ],
    ids=["cut", "empty", "list", "no-context", "number", "brackets", "aliases", "binary", "huge"],
)
def test_a_malformed_kubeconfig(build: Build, directory: Path, text: str, wanted: tuple[str, ...]) -> None:
    config = kubeconfig(directory, text)
    expect_end(over(build, directory, f"--kubeconfig={config}", "--admin=off"), "--kubeconfig", *wanted)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only then does Traffic Server change its user")
def test_a_kubeconfig_that_only_root_may_read(build: Build, directory: Path) -> None:
    """The reason (privileges are dropped before plugins are loaded) and both remedies are in the message."""
    config = kubeconfig(directory, mode=0o400, token=SECRET)
    wanted = ("cannot be read as uid", "mode 0400, owner uid 0", "chmod 0640", "proxy.config.plugin.load_elevated")
    expect_end(over(build, directory, f"--kubeconfig={config}", "--admin=off"), *wanted)


def test_a_token_that_no_header_may_have(build: Build, directory: Path) -> None:
    config = kubeconfig(directory, token=f"{SECRET}\r\nX-Injected: 1")
    expect_end(over(build, directory, f"--kubeconfig={config}", "--admin=off"), "token", "no HTTP header may have")


def test_an_api_server_that_is_not_there(build: Build, directory: Path) -> None:
    """That is no fault of the start: not ready, 503, with the reason, and it would go on trying."""
    config = kubeconfig(directory, token=SECRET)
    (admin_port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.1", 1)
    ats = over(build, directory, f"--kubeconfig={config}", f"--admin=127.0.0.1:{admin_port}", "--start-timeout-ms=2000")
    ats.admin_port = admin_port
    child = ats.start()
    try:
        child.await_ready("HTTPS listens", lambda: processes.is_listening(ats.place, "127.0.0.1", ats.https_port), timeout_s=40)
        assert ats.get("/", host="any.test").status == 503
        assert ats.get(HEALTH_PATH).status == 503
        assert ats.admin("/livez").status == 200

        def says_why() -> bool:
            answer = ats.admin("/readyz")
            assert answer.status == 503
            return b"https://127.0.0.1:1: connection refused: is the API server running, and is the address right?" in answer.body

        processes.await_condition("readiness says why", says_why)
    finally:
        status = ats.stop()
    ats.allow("list or watch failed")
    ats.allow("starting without a table")
    ats.check(status)
    assert SECRET not in ats.log()


# --- the plugin more than once ------------------------------------------------------------------------------------------------


@pytest.fixture
def pod(tmp_path: Path) -> Generator[Pod]:
    """A pod on loopback."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    made = Pod(app="blue", ip="127.0.0.2", port=port)
    with Backends([made], directory=tmp_path):
        yield made


@pytest.fixture
def ats(build: Build, pod: Pod) -> Generator[Ats]:
    """A server over right manifests, not started."""
    with ats_directory() as directory:
        made = Ats(build, directory)
        made.write("site.yaml", [ingress("blue", {"blue.test": [path("blue")]}), *app("blue", [pod.ip], port=pod.port)])
        yield made


def test_the_same_options_in_two_rules(ats: Ats) -> None:
    """Legal: one interpreter, one table, and either rule serves from it."""
    ats.tree.write("remap.config", f"{ats.rule(source='http://blue.test/')}\n{ats.rule()}\n")
    with ats:
        assert ats.get("/", host="blue.test").json()["app"] == "blue"
        assert ats.get("/", host="nobody.test").status == 404


def _other_rule(ats: Ats) -> None:
    other = ats.rule(source="http://other.test/", arguments=[*ats.plugin_arguments(), "--cache=on"])
    ats.tree.write("remap.config", f"{ats.rule()}\n{other}\n")


def _other_ssl(ats: Ats) -> None:
    ats.tree.write("plugin.config", ats.ssl_line(arguments=[*ats.plugin_arguments(), "--cache=on"]) + "\n")


@pytest.mark.parametrize("contradict", [_other_rule, _other_ssl])
def test_options_that_contradict(ats: Ats, contradict: Callable[[Ats], None]) -> None:
    """Both values are named, and the file that has to change."""
    contradict(ats)
    wanted = (
        r"kubernetes_remap\.so has the options",
        r"kubernetes_ssl\.so was loaded with",
        "--cache=on",
        "give both the same options",
    )
    expect_end(ats, *wanted, status=ENDED_BY_REMAP_PLUGIN)


# --- what belongs to somebody else ----------------------------------------------------------------------------------------------


def test_a_port_that_is_taken(ats: Ats) -> None:
    """Traffic Server starts without it; readiness does not, and names the port.  The other port serves."""
    with processes.listen(processes.LOOPBACK, "127.0.0.1", ats.http_port):
        child = ats.start()
        try:
            child.await_ready("HTTPS listens", lambda: processes.is_listening(ats.place, "127.0.0.1", ats.https_port), timeout_s=40)
            answer = ats.admin("/readyz?wait=1")
            assert answer.status == 503
            assert f"port {ats.http_port}" in answer.body.decode() and "is another one using it?" in answer.body.decode()
        finally:
            status = ats.stop()
    ats.allow("Could not bind or listen")
    ats.allow("unable to listen on port")
    ats.check(status)


def test_an_admin_port_that_is_taken(ats: Ats) -> None:
    with processes.listen(processes.LOOPBACK, "127.0.0.1", ats.admin_port):
        wanted = ("option --admin", f"127.0.0.1 port {ats.admin_port}", "Address already in use", "--admin=off")
        expect_end(ats, *wanted)


def test_python_variables_of_the_host_change_nothing(build: Build, pod: Pod) -> None:
    """The embedded interpreter is isolated: PYTHONHOME alone would end the process otherwise."""
    environment = {"PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/nonexistent"}
    with ats_directory() as directory:
        ats = Ats(build, directory, options=Options(environment=environment))
        ats.write("site.yaml", [ingress("blue", {"blue.test": [path("blue")]}), *app("blue", [pod.ip], port=pod.port)])
        with ats:
            assert ats.get("/", host="blue.test").json()["app"] == "blue"
