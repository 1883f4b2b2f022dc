"""One control plane, one pod network and one Traffic Server for most faults; and the report of what each fault cost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, Cluster, watching
from tests.e2e.session import authority as authority
from tests.e2e.session import pytest_runtest_protocol as pytest_runtest_protocol
from tests.e2e.session import shared_net as shared_net
from tests.faults import report
from tests.faults.report import Fault, FaultFactory
from tests.faults.site import Site
from tests.harness.authority import Authority
from tests.harness.controlplane import ControlPlane
from tests.harness.fleet import Fleet
from tests.harness.podnet import PodNet

FAULTS = Path(__file__).resolve().parent
USERS = ("ingress", "proxied")
NAMESPACE = "faults"
_PROPERTY = "fault"
_STARTED_S = time.monotonic()

# What the shared server runs with: times that a test can wait for.
OPTIONS = ("--connect-timeout-ms=500", "--read-timeout-ms=3000", "--health-ejection-ms=2000")


class Reporter:
    """Prints a line for each fault when its test has ended, and keeps all of them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._faults: list[Fault] = []
        self._n_other = 0  # outcomes that are not "passed"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what the test measured."""
        if not report.passed:
            self._n_other += 1
        if report.when != "teardown":
            return
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        for name, value in report.user_properties:
            if name == _PROPERTY:
                fault = Fault(**value)  # type: ignore[arg-type]
                self._faults.append(fault)
                if terminal is not None:
                    terminal.ensure_newline()
                    terminal.write_line(fault.line)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the results; and whether they are all there is."""
        if not self._faults:
            return
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        stats = terminal.stats if terminal is not None else {}
        left_out = [item for item in stats.get("deselected", ()) if not item.get_closest_marker("soak")]
        is_whole = self._n_other == 0 and not left_out and len({fault.group for fault in self._faults}) >= len(_modules())
        report.write_results(self._faults, is_whole=is_whole, elapsed_s=time.monotonic() - _STARTED_S)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Every line again, together."""
        if self._faults:
            terminalreporter.section("faults")
            for fault in self._faults:
                terminalreporter.write_line(fault.line)
            terminalreporter.write_line(f"kept in {report.results_path()}")


def _modules() -> Sequence[Path]:
    """The files that measure faults, each a group of them."""
    return [path for path in sorted(FAULTS.glob("test_*.py")) if "\nGROUP = " in path.read_text(encoding="utf-8")]


# What leaves the shared server least to recover from comes first.
ORDER = ("test_supervisor", "test_pods", "test_rolling_updates", "test_stops", "test_processes", "test_api_server", "test_soak")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules in order; other kinds' tests stay where they are."""
    places = [number for number, item in enumerate(items) if item.path.is_relative_to(FAULTS)]
    ours = sorted((items[number] for number in places), key=lambda item: ORDER.index(item.path.stem))
    for number, item in zip(places, ours, strict=True):
        items[number] = item


def pytest_configure(config: pytest.Config) -> None:
    """Put the reporter in its place."""
    config.pluginmanager.register(Reporter(config), "atsk8s-faults")


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Generator[FaultFactory]:
    """Makes the Fault that a test measures: fault("name", right="...", recovered_max_s=...); the report has it at the end."""
    made: list[Fault] = []
    group = str(request.module.GROUP)

    def make(name: str, *, right: str, recovered_max_s: float, n_failed_max: int = 0) -> Fault:
        made.append(Fault(name=name, group=group, right=right, recovered_max_s=recovered_max_s, n_failed_max=n_failed_max))
        return made[-1]

    yield make
    has_passed = request.node.stash.get(PASSED, False)
    for one in made:
        one.is_whole = has_passed
        request.node.user_properties.append((_PROPERTY, dataclasses.asdict(one)))


PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed, for its fixtures' ends."""
    made = yield
    if made.when == "call":
        item.stash[PASSED] = made.passed
    return made


# --- what all share -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_plane(shared_net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """The control plane; "ingress" and "proxied" may read just what an ingress controller needs."""
    with ControlPlane(directory=tmp_path_factory.mktemp("plane"), place=shared_net, users=USERS) as made:
        for user in ("ingress", "proxied"):
            made.allow(user, [*MANDATORY, *OPTIONAL])
        made.namespace(NAMESPACE)
        yield made


@pytest.fixture(scope="session")
def fleet(shared_net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """Every pod."""
    with Fleet(directory=tmp_path_factory.mktemp("fleet"), place=shared_net) as made:
        yield made


@pytest.fixture(scope="session")
def shared_site(
    build: Build,
    shared_net: PodNet,
    shared_plane: ControlPlane,
    fleet: Fleet,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Site]:
    """A server over the real control plane, ready."""
    token = shared_plane.token("ingress")
    with (
        watching(build, shared_net, shared_plane, token=token, plugin_options=OPTIONS) as ats,
        ats,
    ):
        directory = tmp_path_factory.mktemp("site")
        cluster = Cluster(
            plane=shared_plane, net=shared_net, ats=ats, authority=authority, namespace=NAMESPACE, directory=directory
        )
        yield Site(cluster=cluster, fleet=fleet)


@pytest.fixture
def site(shared_site: Site) -> Generator[Site]:
    """The same; its logs are looked at after each test."""
    shared_site.cluster.plane.api.close()  # the API server ends idle connections, and this client never tries again
    yield shared_site
    shared_site.ats.check_logs()
