"""docs/tutorial.md, done as it says: its commands, from its text, against a real API server, and without one.

Each block of the document that is marked `sh` has a name, `<!-- step: NAME -->` before it, and is run here.  What follows `  # `
behind a command is what must come back.  Blocks marked `console` are what needs a kubelet or a person.  A kubelet's part is played
here: the Deployment's container is a Traffic Server with the environment and the account that the API server holds for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest

from atsk8s.config import OPTIONS
from deploy import prerequisites, server
from deploy.compile import Build
from tests.e2e.test_configmap import INTERVAL, ROLLING, THRESHOLD, asking
from tests.e2e.test_in_cluster import mounted
from tests.harness import controlplane_build, processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.controlplane import ControlPlane
from tests.harness.kubeapi import JsonObject
from tests.harness.podnet import NODE_IP, PodNet

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENT = CHECKOUT / "docs/tutorial.md"
MANIFESTS = CHECKOUT / "tests/e2e/tutorial"
BLOCK = re.compile(r"^(?:<!-- step: ([a-z-]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROXY = "trafficserver-test"  # its namespace, and what it is called there
SNIPPET = "snippet of Ingress trafficserver-test-3/app-ingress"
APPS = ("trafficserver-test-2", "trafficserver-test-3")
ON_A_CLUSTER = (
    "proxy", "apps", "ingresses", "requests", "server-name", "configmap", "debug", "snippet", "no-debug",
    "other-class", "class", "classed", "clean-up",
)  # fmt: skip
ON_A_LAPTOP = ("demo", "demo-requests", "demo-configmap", "demo-class", "demo-classed")
COMMAND_TIMEOUT_S = 60.0
SEEN_TIMEOUT_S = 30.0
DEMO_TIMEOUT_S = 120.0

pytestmark = pytest.mark.timeout(420)


def steps() -> dict[str, str]:
    """The document's `sh` blocks by name, in its order."""
    found: dict[str, str] = {}
    for name, language, commands in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")):
        if language == "sh":
            assert name, f"docs/tutorial.md: a block without a step: {commands}"
            assert name not in found, f"docs/tutorial.md: two steps are called {name}"
            found[name] = commands
        else:
            assert language == "console", f"docs/tutorial.md: a block is {language!r}: sh is run, console is not"
    return found


class Shell:
    """A person's shell: the document's steps, with bash, in a directory that looks like the top of the checkout."""

    def __init__(self, directory: Path, variables: Mapping[str, str], place: processes.Place) -> None:
        self.variables, self._directory, self._place = dict(variables), directory, place
        self._steps = steps()
        for name in ("build.py", "tests"):
            (directory / name).symlink_to(CHECKOUT / name)

    def environment(self) -> dict[str, str]:
        """What leads curl or kubectl elsewhere does not get in."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        cache = str(prerequisites.cache_dir())
        return {**kept, "HOME": str(self._directory), "ATSK8S_BUILD_CACHE": cache, **self.variables}

    def _done(self, command: str) -> str:
        # By env(1): entering a mount namespace resets the working directory.
        done = subprocess.run(
            self._place.argv(["env", "-C", str(self._directory), "bash", "-euo", "pipefail", "-c", command]),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def run(self, step: str) -> None:
        """Do a step line by line: what names its answer until that comes, everything else once."""
        for line in self._steps[step].replace("\\\n", " ").splitlines():
            command, _, answer = line.partition("  # ")
            if answer:
                probe = functools.partial(self._is_answered, command, answer)
                processes.await_condition(f"{command} -> {answer}", probe, timeout_s=SEEN_TIMEOUT_S)
            else:
                self._done(command)

    def _is_answered(self, command: str, wanted: str) -> bool:
        said = self._done(command)
        status, _, target = wanted.partition(" to ")
        if status.isdigit():
            assert re.search(rf"^< HTTP/[\d.]+ {status}\b", said, re.MULTILINE), said
            assert not target or re.search(rf"^< location: {re.escape(target)}\s*$", said, re.MULTILINE | re.IGNORECASE), said
        else:
            assert wanted in said, said
        return True


# --- the document -----------------------------------------------------------------------------------------------------------------


def test_every_command_of_the_document_is_run_here() -> None:
    assert tuple(steps()) == (*ON_A_CLUSTER, *ON_A_LAPTOP)


def test_every_manifest_is_applied_and_linked() -> None:
    text, commands = DOCUMENT.read_text(encoding="utf-8"), "".join(steps().values())
    for path in MANIFESTS.iterdir():
        assert f"(../tests/e2e/tutorial/{path.name})" in text, f"docs/tutorial.md does not link {path.name}"
        assert f"tests/e2e/tutorial/{path.name}" in commands, f"no step applies {path.name}"
    for name in re.findall(r"tests/e2e/tutorial/([\w.-]+)", commands):
        assert (MANIFESTS / name).is_file(), f"docs/tutorial.md applies {name}, which is not there"


@pytest.mark.parametrize("name", ["tutorial.md", "migration-from-apache.md"])
def test_every_option_that_is_named_exists(name: str) -> None:
    text = (CHECKOUT / "docs" / name).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<=`--)[a-z-]+", text)) | set(re.findall(r"(?<=--option )[a-z-]+", text))
    variables = set(re.findall(r"\bATSK8S_[A-Z_]+", text))
    assert named
    assert named <= {option.name for option in OPTIONS}
    assert variables <= {option.variable for option in OPTIONS}


# --- on a cluster -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the person works; Traffic Server can read what the demo puts there."""
    with server.scratch_directory("atsk8s-tutorial-") as made:
        yield made


def deployment(plane: ControlPlane, namespace: str, name: str) -> JsonObject:
    return plane.api.get("apps/v1", "Deployment", name, namespace=namespace)


def container_environment(plane: ControlPlane) -> dict[str, str]:
    """The proxy's variables, as a kubelet makes them of the Deployment that the API server has."""
    (container,) = deployment(plane, PROXY, PROXY)["spec"]["template"]["spec"]["containers"]
    fields = {"metadata.namespace": PROXY}
    assert "args" not in container
    return {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container["env"]
    }


@contextlib.contextmanager
def proxy(build: Build, plane: ControlPlane, net: PodNet, shell: Shell) -> Generator[Ats]:
    """The Deployment's pod: ready inside, and its addresses are what the shell's variables say."""
    pod = deployment(plane, PROXY, PROXY)["spec"]["template"]["spec"]
    token = plane.service_account_token(pod["serviceAccountName"], namespace=PROXY)
    with ats_directory() as tree:
        tree.mkdir(mode=0o755)
        account = tree / "account"
        environment = {**container_environment(plane), **plane.service_account_files(account, token=token, namespace=PROXY)}
        account.chmod(0o755)
        (admin_port,) = processes.free_ports(net, "127.0.0.1", 1)
        lua = f"@plugin=tslua.so @pparam=--states=4 @pparam={build.snippets}"
        options = Options(
            address=NODE_IP,
            manifests=False,
            plugin_options=[f"--admin=127.0.0.1:{admin_port}"],
            environment=environment,
            rule_plugins=f"{lua} {asking(tree, (ROLLING, INTERVAL, THRESHOLD))}",
        )
        ats = Ats(build, tree, place=net, options=options)
        ats.admin_port = admin_port
        shell.variables.update(
            ATS_HTTP=f"{NODE_IP}:{ats.http_port}", ATS_HTTPS=f"{NODE_IP}:{ats.https_port}", ATS_ADMIN=f"127.0.0.1:{admin_port}"
        )
        with mounted(net, account), ats:
            yield ats


@contextlib.contextmanager
def pods(plane: ControlPlane, net: PodNet, directory: Path) -> Generator[None]:
    """The pods of the Deployments in the apps' namespaces, each an address that answers with app and namespace."""
    listening: list[Pod] = []
    for namespace in APPS:
        for app in plane.api.list("apps/v1", "Deployment", namespace=namespace)["items"]:
            name, template = app["metadata"]["name"], app["spec"]["template"]
            (port,) = (port["containerPort"] for port in template["spec"]["containers"][0]["ports"])
            for i in range(app["spec"]["replicas"]):
                ip = f"10.244.90.{len(listening) + 1}"
                plane.ready_pod(namespace, f"{name}-{i}", ip, labels=template["metadata"]["labels"])
                listening.append(Pod(app=f"{name} in {namespace}", ip=ip, port=port))
    assert len(listening) == 8
    try:
        with Backends(listening, directory=directory, place=net):
            yield
    finally:
        for namespace in APPS:  # without a kubelet they would stay, terminating, and their namespaces with them
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
            plane.api.call("DELETE", plane.api.path("v1", "Pod", namespace=namespace), body=body)


def await_true(what: str, probe: Callable[[], bool]) -> None:
    processes.await_condition(what, probe, timeout_s=SEEN_TIMEOUT_S)


def test_on_a_cluster(
    build: Build, shared_net: PodNet, shared_plane: ControlPlane, shared_ats: Ats, directory: Path, tmp_path: Path
) -> None:
    plane = shared_plane
    kubectl = controlplane_build.build()
    variables = {
        "KUBECONFIG": str(plane.kubeconfig(tmp_path / "kubeconfig")),
        "PATH": f"{kubectl}:{os.environ['PATH']}",
        "NO_PROXY": "*",
    }
    shell = Shell(directory, variables, shared_net)
    try:
        shell.run("proxy")
        shell.run("apps")
        with pods(plane, shared_net, tmp_path):
            with proxy(build, plane, shared_net, shell) as ats:
                shell.run("ingresses")
                shell.run("requests")
                shell.run("server-name")
                settings_are_seen(shell, ats)
                lua_is_run(shell, ats)
                shell.run("other-class")
                shell.run("class")
            with proxy(build, plane, shared_net, shell):
                shell.run("classed")
    finally:
        shell.run("clean-up")
    shared_ats.check_logs()


def settings_are_seen(shell: Shell, ats: Ats) -> None:
    """Traffic Server itself says that its records are the ConfigMap's; nothing of the walk-through is complained of."""

    def records() -> str:
        return ats.get("/app1", host="test.media.com").header("x-records") or ""

    before = records()
    shell.run("configmap")
    await_true("the records are those of configmap.yaml", lambda: records() == "1 3000 0")
    assert before != "1 3000 0"
    assert [one for one in ats.admin("/conditions").json() if one["namespace"].startswith(PROXY)] == []


def lua_is_run(shell: Shell, ats: Ats) -> None:
    """The answers are in the document; the messages are in the log, those for debugging while they are wanted."""
    ats.allow(rf"{SNIPPET}: sent to HTTPS|DIAG: .*\(ts_lua\)")
    shell.run("debug")
    shell.run("snippet")

    def is_told() -> bool:
        ats.get("/app2", host="test.edge.com")  # each time: a changed record is seen within 3 s
        log = ats.log()
        said = [said for said in ("sent to HTTPS", "asked for http://test.edge.com/app2") if f"{SNIPPET}: {said}" in log]
        assert len(said) == 2, f"{said}\n{ats.log_tail()}"
        return True

    await_true("the snippet's messages are in the log", is_told)
    shell.run("no-debug")


# --- on a laptop ------------------------------------------------------------------------------------------------------------------


def test_on_a_laptop(directory: Path, tmp_path: Path) -> None:
    shell = Shell(directory, {"NO_PROXY": "*"}, processes.LOOPBACK)
    demo = processes.start(
        processes.LOOPBACK,
        ["bash", "-euo", "pipefail", "-c", steps()["demo"]],
        name="demo",
        log_path=tmp_path / "demo.log",
        env=shell.environment(),
        cwd=directory,
    )
    try:
        demo.await_ready("the demo says so", lambda: "Your turn" in demo.log(), timeout_s=DEMO_TIMEOUT_S)
        for name in ("HTTP", "HTTPS", "admin"):
            found = re.search(rf"^ +{name} +https?://(\S+)", demo.log(), re.MULTILINE)
            assert found is not None, demo.log()
            shell.variables[f"ATS_{name.upper()}"] = found[1]
        shell.run("demo-requests")
        for step in ("demo-configmap", "demo-class", "demo-classed"):
            shell.run(step)
        assert demo.stop(timeout_s=30) == 0, demo.log()
    finally:
        demo.kill()
