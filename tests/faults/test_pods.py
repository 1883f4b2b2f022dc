"""A pod that fails costs no request that another pod can answer; where one cannot be saved, the client is told the truth."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable

import pytest

from tests.faults.report import FaultFactory
from tests.faults.site import App, Site, took_s
from tests.harness import processes
from tests.harness.backends import Fetched
from tests.harness.load import Request
from tests.harness.patience import stretched

GROUP = "Pods"
OURS = "ats.ingress.kubernetes.io/"
SIZE = 20_000
READ_TIMEOUT_S = 3.0  # of the shared server
# An endpoint that failed may be left out for a while: longer after each failure, never for more than this in these tests.
BACK_S = 45.0
# Two tries of a second: Traffic Server looks once a second for what has been silent for too long.
SLOW_MAX_S = 5.0

APPS = {
    name: [f"10.244.{40 + number}.{n}" for n in range(1, 5)]
    for number, name in enumerate(
        (
            "refuse", "killed", "blackhole", "reset-before", "reset-head", "reset-mid", "busy", "hang-before", "hang-after",
            "garbage", "idle", "post", "all-gone", "half", "busy-retried", "slow", "ejected", "budget", "sticky",
        )
    )
}  # fmt: skip
ANNOTATIONS = {
    "busy-retried": {f"{OURS}retry-on": "connect timeout reset 503"},
    "slow": {f"{OURS}read-timeout": "1s", f"{OURS}retry-tries": "2"},
    "budget": {f"{OURS}retry-tries": "8"},
    "sticky": {f"{OURS}affinity": "cookie"},
}


@pytest.fixture(scope="module")
def apps(shared_site: Site) -> dict[str, App]:
    """An app for each fault, so that what is remembered of one pod has no part in the next test."""
    made = {name: shared_site.create(name, ips, annotations=ANNOTATIONS.get(name)) for name, ips in APPS.items()}
    for app in made.values():
        shared_site.await_app(app)
    return made


def served_again(site: Site, ip: str) -> Callable[[], bool]:
    """A probe: the pod gets requests again."""
    before = site.fleet.n_requests(ip)
    return lambda: site.fleet.n_requests(ip) > before + 3


def complete(answer: Fetched | Exception) -> str:
    """What is wrong with an answer that must be whole and right."""
    if isinstance(answer, Exception):
        return type(answer).__name__
    return "" if answer.status == 200 else f"status {answer.status}"


def test_a_pod_refuses(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """One of four listens no more: whoever connects next goes to another, WebSockets too; those that are open go on."""
    app, bad = apps["refuse"], APPS["refuse"][3]
    measured = fault("pod refuses connections", right="200 from another pod", recovered_max_s=BACK_S)
    with site.loaded(app, measured, requests_per_connection={"websocket": 10}) as traffic:
        traffic.served(40)
        site.fleet.refuse(bad)
        traffic.flow(120)
        site.fleet.listen(bad)
        measured.recovered_s = took_s("the pod serves again", served_again(site, bad), timeout_s=BACK_S + 10)
        traffic.served(40)
    measured.check(at_least=400)


def test_a_pod_is_killed(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Its connections are reset, among them those that requests are on: the requests go to another pod."""
    app, bad = apps["killed"], APPS["killed"][3]
    measured = fault("pod is killed", right="200 from another pod", recovered_max_s=BACK_S)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        traffic.served(40)
        for _ in range(5):
            site.fleet.kill(bad)
            traffic.flow(20)
            site.fleet.listen(bad)
            traffic.flow(20)
        measured.recovered_s = took_s("the pod serves again", served_again(site, bad), timeout_s=BACK_S + 10)
    measured.check(at_least=400)


def test_a_pod_is_a_blackhole(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Every packet of one of four is lost: connects time out, requests on open connections get no answer."""
    app, bad, net = apps["blackhole"], APPS["blackhole"][3], site.cluster.net
    measured = fault("pod is a blackhole", right="200 from another pod, after a time limit", recovered_max_s=BACK_S)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        traffic.served(40)
        net.blackhole(bad)
        try:
            traffic.flow(120)
        finally:
            net.heal(bad)
        measured.recovered_s = took_s("the pod serves again", served_again(site, bad), timeout_s=BACK_S + 10)
    measured.check(at_least=300)


@pytest.mark.parametrize(
    ("name", "title", "behaviour"),
    [
        ("reset-before", "pod resets before the answer", "reset=before"),
        ("reset-head", "pod resets in the header", "reset=head"),
        ("hang-before", "pod hangs before the answer", "hang=before"),
        ("busy-retried", "pod answers 503, retry-on: 503", "status=503"),
    ],
)
def test_a_pod_fails_before_its_answer(
    site: Site, apps: dict[str, App], fault: FaultFactory, name: str, title: str, behaviour: str
) -> None:
    """No whole header has come, or a status that retry-on names: a GET goes to another pod."""
    app, bad = apps[name], APPS[name][3]
    measured = fault(title, right="200 from another pod", recovered_max_s=BACK_S)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        traffic.served(40)
        site.fleet.behave([bad], behaviour)
        traffic.flow(120)
        site.fleet.behave([bad], "")
        measured.recovered_s = took_s("the pod serves again", served_again(site, bad), timeout_s=BACK_S + 10)
    measured.check(at_least=300)


def whole_or_visibly_cut(answer: Fetched | Exception) -> str:
    """What is wrong: an answer that looks whole and is not, or a failure that says nothing."""
    if isinstance(answer, (http.client.IncompleteRead, ConnectionError)):
        return ""
    if isinstance(answer, Exception):
        return type(answer).__name__
    return "" if answer.status == 200 and len(answer.body) == SIZE else f"status {answer.status} with {len(answer.body)} bytes"


@pytest.mark.parametrize(
    ("name", "title", "behaviour", "n"),
    [
        ("reset-mid", "pod resets after the header", f"reset=mid&size={SIZE}", 60),
        ("hang-after", "pod hangs after the header", f"hang=after&size={SIZE}", 6),
    ],
)
def test_a_pod_fails_within_its_answer(
    site: Site, apps: dict[str, App], fault: FaultFactory, name: str, title: str, behaviour: str, n: int
) -> None:
    """The client has seen the header: nothing can be repeated, and it must see that the answer is cut."""
    app, bad = apps[name], APPS[name][3]
    measured = fault(title, right="whole, or visibly cut within the time limit", recovered_max_s=BACK_S)
    site.fleet.behave(app.ips, f"size={SIZE}")
    site.fleet.behave([bad], behaviour)
    site.burst(n, app, whole_or_visibly_cut, measured)
    assert site.fleet.n_requests(bad) > 0, "the bad pod was never asked"
    site.fleet.behave([bad], f"size={SIZE}")

    def serves() -> bool:
        is_back = served_again(site, bad)
        for _ in range(40):
            assert complete(site.get(app.host)) == ""
        return is_back()

    measured.recovered_s = took_s("the pod serves again", serves, timeout_s=BACK_S + 10)
    measured.check(at_least=n)


def test_a_pod_answers_503(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """By default an answer is an answer: the client gets the pod's 503, untouched."""
    app, bad = apps["busy"], APPS["busy"][3]
    measured = fault("pod answers 503", right="the pod's own answer", recovered_max_s=BACK_S)
    site.fleet.behave([bad], "status=503")

    def of_the_pod(answer: Fetched | Exception) -> str:
        if isinstance(answer, Exception):
            return type(answer).__name__
        is_right = answer.status in (200, 503) and answer.header("x-app") == app.name
        return "" if is_right else f"status {answer.status}"

    site.burst(100, app, of_the_pod, measured)
    site.fleet.behave([bad], "")
    measured.recovered_s = took_s("all is well", lambda: all(site.get(app.host).status == 200 for _ in range(20)), timeout_s=30)
    measured.check(at_least=100)


def test_a_pod_answers_garbage(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """What is no HTTP never reaches the client: a GET goes to another pod."""
    app, bad = apps["garbage"], APPS["garbage"][3]
    measured = fault("pod answers garbage", right="200 from another pod", recovered_max_s=BACK_S)
    site.fleet.behave([bad], "garbage=1")
    before = site.fleet.n_requests(bad)

    def right(answer: Fetched | Exception) -> str:
        return complete(answer) or ("" if isinstance(answer, Fetched) and answer.header("x-app") == app.name else "garbage")

    site.burst(100, app, right, measured)
    assert site.fleet.n_requests(bad) > before, "the bad pod was never asked"
    site.fleet.behave([bad], "")
    measured.recovered_s = took_s("all is well", lambda: all(site.get(app.host).status == 200 for _ in range(20)), timeout_s=BACK_S)
    measured.check(at_least=100)


def test_pods_close_idle_connections(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Every pod closes a connection just when it is about to be used again: a GET is repeated, a POST is never executed twice."""
    app = apps["idle"]
    measured = fault(
        "pods close idle connections as they are reused",
        right="GET 200; POST 200, or 502 and not executed twice",
        recovered_max_s=5,
    )
    rounds = (5, 20, 40)
    n_told = 0

    def told(answer: Fetched | Exception) -> str:
        nonlocal n_told
        n_told += isinstance(answer, Fetched) and answer.status == 502
        return "" if isinstance(answer, Fetched) and answer.status in (200, 502) else repr(answer)[:40]

    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        for idle_ms in rounds:
            site.fleet.behave(app.ips, f"idle_ms={idle_ms}")
            traffic.flow(60)
            site.burst(30, app, told, measured, target=f"/?id={idle_ms}-{{i}}", method="POST", body=b"x" * 100)
        site.fleet.behave(app.ips, "")
        measured.recovered_s = took_s("all is well", lambda: all(site.get(app.host).status == 200 for _ in range(20)), timeout_s=30)
    n_ids, most = site.fleet.executions()
    assert n_ids > 0 and most == 1, f"{n_ids} POSTs, one of them executed {most} times"
    measured.notes.append(f"{n_told} of {len(rounds) * 30} POSTs 502")
    measured.check(at_least=300)


def test_a_post_is_cut(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """The pod resets when it has taken a POST: nobody knows what it did, so the client is told 502, and no other pod gets it."""
    app = apps["post"]
    measured = fault("pod resets a POST", right="502, and executed once", recovered_max_s=BACK_S)
    site.fleet.behave(app.ips, "reset=before&only=POST")
    before = [site.fleet.n_requests(ip) for ip in app.ips]

    def refused(answer: Fetched | Exception) -> str:
        return "" if isinstance(answer, Fetched) and answer.status == 502 else repr(answer)[:60]

    site.burst(20, app, refused, measured, target="/?id=cut-{i}", method="POST", body=b"x" * 1000)
    n_taken = sum(site.fleet.n_requests(ip) for ip in app.ips) - sum(before)
    assert n_taken == 20, f"20 POSTs were sent, and pods were asked {n_taken} times"
    site.fleet.behave(app.ips, "")
    measured.recovered_s = took_s(
        "all is well", lambda: site.get(app.host, method="POST", body=b"x").status == 200, timeout_s=BACK_S
    )
    measured.check(at_least=20)


def test_half_of_the_pods_fail(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Two of four, each in its own way."""
    app = apps["half"]
    measured = fault("half of the pods fail", right="200 from another pod", recovered_max_s=BACK_S)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        traffic.served(20)
        site.fleet.kill(app.ips[2])
        site.fleet.behave([app.ips[3]], "reset=before")
        traffic.flow(120)
        site.fleet.listen(app.ips[2])
        site.fleet.behave([app.ips[3]], "")
        probes = [served_again(site, ip) for ip in app.ips[2:]]
        measured.recovered_s = took_s("both serve again", lambda: all(probe() for probe in probes), timeout_s=BACK_S + 10)
    measured.check(at_least=280)


def test_all_pods_fail(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Nobody can answer: the client is told so, at once, and no longer than it lasts: nothing is remembered against all of them."""
    app = apps["all-gone"]
    measured = fault("all pods fail", right="502 or 503 at once; 200 as soon as one is back", recovered_max_s=3)
    for ip in app.ips:
        site.fleet.kill(ip)

    def told(answer: Fetched | Exception) -> str:
        if isinstance(answer, Exception):
            return type(answer).__name__
        return "" if answer.status in (502, 503) else f"status {answer.status}"

    site.burst(60, app, told, measured)
    site.fleet.listen(app.ips[0])
    for ip in app.ips[1:]:
        site.fleet.listen(ip)
    measured.recovered_s = took_s("it is served", lambda: all(site.get(app.host).status == 200 for _ in range(8)), timeout_s=30)
    measured.check(at_least=60)


def test_slow_pods_meet_their_time_limit(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """read-timeout: 1s and two tries: a pod that says nothing costs its client no more."""
    app = apps["slow"]
    measured = fault("all pods hang, read-timeout: 1s", right="504 (or 502) within two tries of a second", recovered_max_s=3)
    site.fleet.behave(app.ips, "hang=before")

    def in_time(answer: Fetched | Exception) -> str:
        return "" if isinstance(answer, Fetched) and answer.status in (502, 504) else repr(answer)[:60]

    for _ in range(3):
        began_s = time.monotonic()
        site.burst(1, app, in_time, measured)
        spent_s = time.monotonic() - began_s
        assert spent_s < stretched(SLOW_MAX_S), f"an answer took {spent_s:.1f} s"
    site.fleet.behave(app.ips, "")
    measured.recovered_s = took_s("it is served", lambda: all(site.get(app.host).status == 200 for _ in range(8)), timeout_s=30)
    measured.check(at_least=3)


def test_a_pod_that_fails_is_left_out(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Passive health: after some failures in a row it gets no more until its time is over; then one success restores it."""
    app, bad = apps["ejected"], APPS["ejected"][3]
    measured = fault("pod fails for long", right="200; the pod is asked a few times only", recovered_max_s=BACK_S)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        traffic.served(40)
        site.fleet.behave([bad], "reset=before")
        before = site.fleet.n_requests(bad)
        traffic.flow(200)
        n_asked = site.fleet.n_requests(bad) - before
        assert n_asked <= 30, f"a pod that fails each time was asked {n_asked} times in some 700 requests"
        measured.notes.append(f"asked {n_asked} times while it failed")
        site.fleet.behave([bad], "")
        measured.recovered_s = took_s("the pod serves again", served_again(site, bad), timeout_s=BACK_S + 10)
    measured.check(at_least=400)


def test_retries_do_not_multiply_an_outage(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """Every pod resets every request, and eight tries are allowed: pods see a fifth more than clients send, and a floor."""
    app = apps["budget"]
    measured = fault("all pods reset: retry budget", right="502, 503 or 504; few retries in all", recovered_max_s=BACK_S)
    site.fleet.behave(app.ips, "reset=before")
    before = sum(site.fleet.n_requests(ip) for ip in app.ips)
    expected = [Request(host=app.host, status=502)]
    with site.loaded(app, measured, protocols=("http1",), requests=expected) as traffic:
        traffic.flow(400)
    n_asked = sum(site.fleet.n_requests(ip) for ip in app.ips) - before
    site.fleet.behave(app.ips, "")
    # Which of these statuses is no matter: the bar is what the pods were asked.
    measured.failures = {what: n for what, n in measured.failures.items() if what not in ("http1: status 503", "http1: status 504")}
    measured.n_failed = sum(measured.failures.values())
    measured.notes.append(f"the pods were asked {n_asked / measured.n_sent:.2f} times a request")
    assert n_asked <= 2.0 * measured.n_sent, f"{n_asked} attempts for {measured.n_sent} requests"
    measured.recovered_s = took_s("it is served", lambda: all(site.get(app.host).status == 200 for _ in range(8)), timeout_s=BACK_S)
    measured.check(at_least=400)


def test_affinity_moves_on(site: Site, apps: dict[str, App], fault: FaultFactory) -> None:
    """A client that sticks to a pod stays there while the pod serves, and moves, without a failure, when it fails."""
    app = apps["sticky"]
    measured = fault("affine pod is killed", right="200, from the same pod while it lives", recovered_max_s=5)
    first = site.get(app.host)
    cookie = (first.header("set-cookie") or "").split(";")[0]
    assert cookie, f"affinity: cookie, and no Set-Cookie: {first.headers}"
    assert not any(ip in cookie for ip in app.ips), cookie
    mine = (first.header("x-pod") or "").rpartition(":")[0]
    sent = [("Cookie", cookie)]

    def same(answer: Fetched | Exception) -> str:
        return complete(answer) or ("" if isinstance(answer, Fetched) and answer.header("x-pod") == f"{mine}:8080" else "moved")

    site.burst(40, app, same, measured, headers=sent)
    site.fleet.kill(mine)
    site.burst(40, app, complete, measured, headers=sent)
    site.fleet.listen(mine)
    measured.recovered_s = took_s("it is served", lambda: site.get(app.host, headers=sent).status == 200, timeout_s=30)
    measured.check(at_least=80)


def test_terminating_pods_serve_rather_than_nobody(site: Site, fault: FaultFactory) -> None:
    """Every pod is terminating and none is ready: they still serve, and they get it all."""
    app = site.create("leaving", ["10.244.70.1", "10.244.70.2"])
    site.await_app(app)
    measured = fault("all pods terminate", right="200 from a terminating pod", recovered_max_s=30)
    with site.loaded(app, measured, protocols=("http1", "h2")) as traffic:
        for ip in app.ips:
            site.cluster.plane.api.delete(
                "v1", "Pod", f"leaving-{ip.replace('.', '-')}", namespace=site.cluster.namespace, grace_s=60
            )
        processes.await_condition("the slices say so", lambda: all(not one for one in _ready(site, "leaving")), timeout_s=20)
        traffic.flow(100)
        site.fleet.start("leaving", ["10.244.70.3"])
        site.cluster.pods("leaving", ["10.244.70.3"])
        measured.recovered_s = took_s("the new pod serves", served_again(site, "10.244.70.3"), timeout_s=30)
        traffic.served(40)
    measured.check(at_least=200)


def _ready(site: Site, service: str) -> list[bool]:
    query = {"labelSelector": f"kubernetes.io/service-name={service}"}
    namespace = site.cluster.namespace
    items = site.cluster.plane.api.list("discovery.k8s.io/v1", "EndpointSlice", namespace=namespace, query=query)["items"]
    return [endpoint["conditions"]["ready"] for item in items for endpoint in item["endpoints"] or []]
