"""The last good state: what a start serves while the source of truth is away, what becomes of a file that cannot be used, and how
live data takes over without a failed request."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest

from deploy import server
from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, START_TIMEOUT_S, Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod
from tests.harness.fakeapi import FakeApi
from tests.harness.load import Load, Request
from tests.harness.manifests import Json, app, ingress, path, tls_secret

OLD = Pod(app="old", ip="127.49.1.1", port=28084)
NEW = Pod(app="new", ip="127.49.1.2", port=28084)
IGNORED = r"the last good state of --state-dir=.* is ignored"
AWAY = r"--manifests|the directory"  # what is said while it is not there


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """Two apps of one pod each."""
    with Backends([OLD, NEW], directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")


class Site:
    """A server with a state directory, and manifests that can go away."""

    def __init__(self, build: Build, directory: Path, options: Sequence[str] = ()) -> None:
        self.state = directory.parent / "state"
        self.state.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = server.ats_user()
            os.chown(self.state, user.pw_uid, user.pw_gid)
        self.file = self.state / "table.state"
        self.ats = Ats(build, directory, options=Options(plugin_options=[f"--state-dir={self.state}", *options]))
        self._aside = self.ats.manifests.with_name("manifests.away")

    def write(self, pod: Pod, *more: Json) -> None:
        """app.test leads to `pod`, as does also-POD.test."""
        rules = {"app.test": [path(pod.app)], f"also-{pod.app}.test": [path(pod.app)]}
        tls = {"cert": ["app.test"]} if more else None
        self.ats.write("site.yaml", [ingress("site", rules, tls=tls), *app(pod.app, [pod.ip], port=pod.port), *more])

    def take_away(self) -> None:
        self.ats.manifests.rename(self._aside)

    def bring_back(self) -> None:
        self._aside.rename(self.ats.manifests)

    def await_saved(self) -> None:
        """Wait until the published table is in the file."""
        processes.await_condition("the state is written", lambda: self.ats.counter("atsk8s_state_saves_total", result="saved") > 0)

    def start_away(self) -> None:
        """Start without the manifests, and wait until requests are answered."""
        self.ats.allow(AWAY)
        self.ats.start()
        self.ats.await_ready()

    def await_said(self, words: str) -> str:
        """Wait until /readyz says `words`, and return all it says."""
        return processes.await_condition(
            words, lambda: text if words in (text := self.ats.admin("/readyz").body.decode()) else None, timeout_s=20
        )

    def stop(self) -> None:
        self.ats.check(self.ats.stop())


@contextlib.contextmanager
def prepared(build: Build, *options: str) -> Iterator[Site]:
    """A server, not started; killed at the end if it still runs."""
    with ats_directory() as directory:
        site = Site(build, directory, options)
        try:
            yield site
        finally:
            if site.ats._child is not None and site.ats.child.status is None:
                site.ats.child.kill()


def saved(site: Site, *more: Json) -> None:
    """Run it once with the old app, until its state is written, and stop it."""
    site.write(OLD, *more)
    site.ats.start()
    site.ats.await_ready()
    site.await_saved()
    site.stop()
    assert stat.S_IMODE(site.file.stat().st_mode) == 0o600
    assert sorted(os.listdir(site.state)) == ["session.key", "table.state"]  # and nothing half-written


def test_it_serves_until_live_data_takes_over(build: Build, backends: Backends, authority: Authority, tmp_path: Path) -> None:
    """Ready and degraded while the source is away, over HTTP and HTTPS; then no request of a running load fails."""
    pair = authority.pair(["app.test"])
    secret = tls_secret("cert", pair.certificate, pair.key)
    with prepared(build, "--state-certificates=true") as site:
        saved(site, secret)
        site.take_away()
        site.start_away()
        ats = site.ats

        assert ats.get("/", host="app.test").header("x-app") == "old"
        assert ats.get_tls("/", host="app.test", tls=authority.client_context()).header("x-app") == "old"
        assert ats.get("/", host="never.test").status == 404
        assert ats.get(HEALTH_PATH).status == 200
        said = site.await_said("degraded: serving the last good state")
        assert said.startswith("ready\n")
        assert ats.counter("atsk8s_ready") == 1 and ats.counter("atsk8s_degraded") == 1
        assert 0 < ats.counter("atsk8s_state_age_seconds") < 3600
        assert ats.counter("atsk8s_state_saves_total", result="saved") == 0, "it is not written while it is served"
        assert ats.explain("http://app.test/")["decision"] == "rule"

        loads = [
            Load([Request(host="app.test")], ip="127.0.0.1", port=ats.http_port, directory=tmp_path, name="http"),
            Load(
                [Request(host="app.test")],
                ip="127.0.0.1",
                port=ats.https_port,
                ca_file=authority.path,
                requests_per_connection=3,
                requests_per_s=60,
                directory=tmp_path,
                name="https",
            ),
        ]
        with contextlib.ExitStack() as stack:
            for load in loads:
                stack.enter_context(load).await_more(20)
            site.bring_back()
            site.write(NEW, secret)
            processes.await_condition("live", lambda: ats.counter("atsk8s_degraded") == 0)
            for load in loads:
                load.await_more(20)
        for load in loads:
            load.finished.expect_no_failure(at_least=40)
        assert ats.get("/", host="app.test").header("x-app") == "new"
        assert ats.get("/", host="also-old.test").status == 404, "what live data does not have is gone"
        assert ats.counter("atsk8s_state_age_seconds") == 0
        assert ats.counter("atsk8s_table_objects", what="virtual_hosts") == 2
        site.await_saved()
        assert "live data has taken over" in ats.log()
        ats.allow(AWAY)
        site.stop()


def test_without_certificates_no_key_is_written(build: Build, backends: Backends, authority: Authority) -> None:
    """HTTPS waits for live data then; HTTP does not."""
    pair = authority.pair(["app.test"])
    with prepared(build) as site:
        saved(site, tls_secret("cert", pair.certificate, pair.key))
        der = ssl.PEM_cert_to_DER_cert(pair.certificate.decode())
        assert der not in site.file.read_bytes()
        site.take_away()
        site.start_away()
        assert site.ats.get("/", host="app.test").status == 200
        with pytest.raises(ssl.SSLError):
            site.ats.get_tls("/", host="app.test", tls=authority.client_context())
        site.bring_back()
        processes.await_condition("live", lambda: site.ats.counter("atsk8s_degraded") == 0)
        assert site.ats.get_tls("/", host="app.test", tls=authority.client_context()).status == 200
        site.ats.allow(AWAY)
        site.ats.allow("SSL")
        site.stop()


def _turn_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def _cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 100])


def _date(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4] += 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_turn_a_byte, "checksum"),
        (_cut, "cut short"),
        (_date, "another version"),
        (lambda file: file.write_bytes(b""), "size"),
        (lambda file: file.chmod(0o622), "its owner alone"),
    ],
    ids=["corrupt", "truncated", "other version", "empty", "writable to all"],
)
def test_a_file_that_is_not_good_is_ignored(build: Build, backends: Backends, spoil: Callable[[Path], object], words: str) -> None:
    """With one line that says why; the start is as without it, and the file is written anew."""
    with prepared(build) as site:
        saved(site)
        spoil(site.file)
        site.write(NEW)
        site.ats.allow(IGNORED)
        site.ats.start()
        site.ats.await_ready()
        assert site.ats.get("/", host="app.test").header("x-app") == "new"
        site.await_saved()
        (line,) = [line for line in site.ats.log().splitlines() if "is ignored" in line]
        assert words in line
        site.stop()


def test_a_state_of_other_options_is_ignored(build: Build, backends: Backends) -> None:
    with prepared(build) as site:
        saved(site)
        arguments = [*site.ats.plugin_arguments(), "--tenancy=strict"]
        site.ats.tree.write("remap.config", site.ats.rule(arguments=arguments) + "\n")
        site.ats.tree.write("plugin.config", site.ats.ssl_line(arguments=arguments) + "\n")
        site.ats.allow(IGNORED)
        site.ats.start()
        site.ats.await_ready()
        assert "other options" in site.ats.log()
        site.stop()


def test_a_stop_writes_what_is_new(build: Build, backends: Backends) -> None:
    """The last change before an orderly stop is in the state, however short before it was."""
    with prepared(build) as site:
        site.write(OLD)
        site.ats.start()
        site.ats.await_ready()
        site.await_saved()
        site.ats.change(lambda: site.write(NEW))
        site.stop()
        site.take_away()
        site.start_away()
        assert site.ats.get("/", host="app.test").header("x-app") == "new"
        site.ats.allow(AWAY)
        site.stop()


def test_writing_that_fails_costs_a_line(build: Build, backends: Backends) -> None:
    """The directory is a file's: requests are answered, the metric counts, the log says it once."""
    with prepared(build) as site:
        site.write(OLD)
        site.state.rmdir()
        site.state.write_text("")
        site.ats.allow(IGNORED)
        site.ats.allow("could not be written")
        site.ats.allow("session.key holds no key of session cookies")
        site.ats.start()
        site.ats.await_ready()
        processes.await_condition("counted", lambda: site.ats.counter("atsk8s_state_saves_total", result="failed") >= 1)
        assert site.ats.get("/", host="app.test").status == 200
        lines = [line for line in site.ats.log().splitlines() if "could not be written" in line]
        assert len(lines) == 1 and "Not a directory" in lines[0] and "--state-dir" in lines[0]
        site.stop()


def test_a_configmap_s_health_path_holds_over_a_start(build: Build, backends: Backends) -> None:
    """What asks for readiness there goes on to get an answer while the source is away; live data then says what holds."""
    metadata = {"name": "settings", "namespace": "proxy", "annotations": {"ats-configmap": "true"}}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"healthcheck-path": "/healthz"}}
    with prepared(build, "--pod-namespace=proxy") as site:
        ats = site.ats

        def answers(path: str) -> bool:
            return ats.get(path).status == 200

        site.write(OLD)
        ats.write("settings.yaml", [settings])
        ats.start()
        ats.child.await_ready("the ConfigMap's path answers", lambda: answers("/healthz"), timeout_s=START_TIMEOUT_S)
        site.await_saved()
        site.stop()
        site.take_away()
        ats.allow(AWAY)
        ats.start()
        ats.child.await_ready("and without manifests", lambda: answers("/healthz"), timeout_s=START_TIMEOUT_S)
        site.await_said("degraded: serving the last good state")
        assert answers("/healthz") and not answers(HEALTH_PATH)
        site.bring_back()
        ats.write("settings.yaml", [])
        processes.await_condition("the option's path answers again", lambda: answers(HEALTH_PATH), timeout_s=20)
        assert not answers("/healthz")
        site.stop()


def test_api_server_away_from_the_start(build: Build) -> None:
    """Degraded for as long as it takes, still trying; then live.  Pods are out of reach here: what is looked at is who answers."""

    def fill(api: FakeApi, name: str) -> None:
        api.put("/apis/networking.k8s.io/v1/ingresses", ingress(name, {f"{name}.test": [path("nobody")]}))

    usual = "no such Service|API server|[Cc]onnection"

    with ats_directory() as directory, FakeApi() as api:
        state = directory.parent / "state"
        state.mkdir(mode=0o777)
        state.chmod(0o777)
        (admin,) = processes.free_ports(processes.LOOPBACK, "127.0.0.1", 1)
        given = [f"--server={api.url}", f"--admin=127.0.0.1:{admin}", f"--state-dir={state}"]
        ats = Ats(build, directory, options=Options(manifests=False, plugin_options=given, environment={"ATSK8S_TOKEN": "token"}))
        ats.admin_port = admin
        fill(api, "first")
        try:
            ats.start()
            ats.await_ready()
            processes.await_condition("the state is written", lambda: ats.counter("atsk8s_state_saves_total", result="saved") > 0)
            ats.allow(usual)
            ats.check(ats.stop())
            api.close()

            ats.start()
            ats.await_ready()
            assert ats.get("/", host="first.test").status == 503
            assert ats.get("/", host="never.test").status == 404
            processes.await_condition("it says so", lambda: ats.counter("atsk8s_degraded") == 1)
            processes.await_condition("it tries", lambda: ats.counter("atsk8s_api_requests_total", kind="Ingress") > 1)
            assert ats.get(HEALTH_PATH).status == 200
            with FakeApi(port=api.port) as back:
                fill(back, "second")
                processes.await_condition("live", lambda: ats.counter("atsk8s_degraded") == 0, timeout_s=60)
                assert ats.get("/", host="first.test").status == 404
                assert ats.get("/", host="second.test").status == 503
                ats.allow(usual)
                ats.check(ats.stop())
        finally:
            if ats.child.status is None:
                ats.child.kill()
