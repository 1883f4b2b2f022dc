"""Active health checks: an endpoint that fails them gets no request, until it passes them again."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, ats_directory
from tests.harness.backends import Backends, Pod, fetch
from tests.harness.manifests import ANNOTATION_PREFIX, Json, endpoint_slice, ingress, path, service

INTERVAL_MS = 100


@pytest.fixture(scope="module")
def pods() -> tuple[Pod, ...]:
    """Three pods of one Service, on one free port."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    return tuple(Pod(app=f"pod-{n}", ip=f"127.0.0.{n}", port=port) for n in (2, 3, 4))


@pytest.fixture(scope="module")
def backends(pods: tuple[Pod, ...], tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """The pods."""
    with Backends(pods, directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


def site(pods: tuple[Pod, ...], annotations: dict[str, str]) -> list[Json]:
    """The objects, with these annotations on the Service."""
    checked = service("checked")
    about = checked["metadata"]
    assert isinstance(about, dict)
    about["annotations"] = {f"{ANNOTATION_PREFIX}/{name}": value for name, value in annotations.items()}
    endpoints = endpoint_slice("checked", [pod.ip for pod in pods], port=pods[0].port)
    return [ingress("checked", {"checked.test": [path("checked")]}), checked, endpoints]


CHECKS = {
    "health-check-path": "/healthz",
    "health-check-interval": f"{INTERVAL_MS}ms",
    "health-check-timeout": "2s",
}


@pytest.fixture(scope="module")
def ats(build: Build, pods: tuple[Pod, ...], backends: Backends) -> Generator[Ats]:
    """One server, whose Service asks for checks."""
    with ats_directory() as directory:
        made = Ats(build, directory)
        made.write("site.yaml", site(pods, CHECKS))
        with made:
            yield made


def states(ats: Ats) -> dict[str, object]:
    """What explain says of each endpoint: address to state."""
    endpoints = ats.explain("http://checked.test/")["endpoints"]
    assert isinstance(endpoints, list)
    return {one["address"]: one["state"] for one in endpoints}


def answering(ats: Ats, n: int = 30) -> set[str]:
    """Who answers requests; each with 200, whatever the pod says to checks."""
    seen: set[str] = set()
    for _ in range(n):
        answer = fetch(processes.LOOPBACK, "127.0.0.1", ats.http_port, "/?status=200", headers=[("Host", "checked.test")])
        assert answer.status == 200
        seen.add(answer.json()["pod"])
    return seen


def test_who_fails_its_checks_gets_no_request_until_it_passes_them(ats: Ats, backends: Backends, pods: tuple[Pod, ...]) -> None:
    """The pod answers traffic well all the while, so that nothing but the checks can have it out."""
    names = {pod.name for pod in pods}
    assert answering(ats) == names
    backends.behave(pods[0], "status=503")
    processes.await_condition("it is left out", lambda: states(ats)[pods[0].name] == "ejected", timeout_s=20)
    assert answering(ats) == names - {pods[0].name}
    endpoint = next(one for one in ats.explain("http://checked.test/")["endpoints"] if one["address"] == pods[0].name)
    assert endpoint["probe"] == "left out: status 503"
    assert endpoint["service"] == "test/checked:80"
    assert 0 < endpoint["left_out_by_checks_ms"] <= 3 * INTERVAL_MS + 2000
    rows = 'atsk8s_endpoints_ejected{namespace="test",port="80",service="checked"}'
    processes.await_condition("it is counted", lambda: f"{rows} 1.0" in ats.admin("/metrics").body.decode(), timeout_s=10)
    assert ats.counter("atsk8s_services_with_ejected_endpoints") == 1
    assert ats.counter("atsk8s_probed_endpoints") == 3
    backends.behave(pods[0], "")
    processes.await_condition("it is back", lambda: states(ats)[pods[0].name] == "eligible", timeout_s=20)
    assert answering(ats) == names


def test_most_failing_are_all_used(ats: Ats, backends: Backends, pods: tuple[Pod, ...]) -> None:
    """More than half look bad: a fault of the checks must not empty the Service."""
    for pod in pods[:2]:
        backends.behave(pod, "status=503")
    bad = {pod.name for pod in pods[:2]}
    processes.await_condition(
        "they fail", lambda: {name for name, state in states(ats).items() if state == "ejected"} == bad, timeout_s=20
    )
    assert answering(ats, 60) == {pod.name for pod in pods}
    for pod in pods[:2]:
        backends.behave(pod, "")
    processes.await_condition("they are back", lambda: set(states(ats).values()) == {"eligible"}, timeout_s=20)


def test_without_its_annotation_a_service_is_not_checked(ats: Ats, backends: Backends, pods: tuple[Pod, ...]) -> None:
    """Switched off while one is left out: it is back at once, and nobody is asked any more."""
    backends.behave(pods[0], "status=503")
    processes.await_condition("it is left out", lambda: states(ats)[pods[0].name] == "ejected", timeout_s=20)
    ats.write("site.yaml", site(pods, {}))
    processes.await_condition("no more checks", lambda: ats.counter("atsk8s_probed_endpoints") == 0, timeout_s=20)
    processes.await_condition("it is back", lambda: states(ats)[pods[0].name] == "eligible", timeout_s=20)
    backends.behave(pods[0], "")
    backends.clear()
    assert answering(ats) == {pod.name for pod in pods}
    assert not [seen for seen in backends.requests() if seen.target == "/healthz"]
    ats.write("site.yaml", site(pods, CHECKS))
    processes.await_condition("checks again", lambda: ats.counter("atsk8s_probed_endpoints") == 3, timeout_s=20)
