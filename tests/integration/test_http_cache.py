"""Traffic Server's own cache through us: off unless asked for, and then one entry for all pods and spellings of a URL."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.authority import Authority
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import Json, app, ingress, path, tls_secret

PODS = tuple(Pod(app="shop", ip=f"127.46.1.{n}", port=28081) for n in (1, 2, 3))
OTHER = Pod(app="other", ip="127.46.2.1", port=28081)
FRESH = "cache_control=max-age%3D600"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """For HTTPS."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.pem")


@pytest.fixture(scope="module")
def site(authority: Authority) -> list[Json]:
    """One app of three pods, and another one."""
    pair = authority.pair(["shop.test"])
    return [
        ingress("shop", {"shop.test": [path("shop")], "other.test": [path("other")]}, tls={"shop": ["shop.test"]}),
        tls_secret("shop", pair.certificate, pair.key),
        *app("shop", [pod.ip for pod in PODS], port=PODS[0].port),
        *app("other", [OTHER.ip], port=OTHER.port),
    ]


@pytest.fixture(scope="module")
def running_backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    """Every pod."""
    with Backends([*PODS, OTHER], directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture
def backends(running_backends: Backends) -> Backends:
    """With nothing counted."""
    running_backends.clear()
    return running_backends


@pytest.fixture(scope="module")
def caching(build: Build, running_backends: Backends, site: list[Json]) -> Generator[Ats]:
    """A server with --cache=on."""
    with ats_directory() as directory:
        made = Ats(build, directory, options=Options(plugin_options=["--cache=on"]))
        made.write("site.yaml", site)
        with made:
            yield made


def test_off_by_default(build: Build, backends: Backends, site: list[Json]) -> None:
    with ats_directory() as directory:
        made = Ats(build, directory)
        made.write("site.yaml", site)
        with made as ats:
            for _ in range(3):
                assert ats.get(f"/?{FRESH}", host="shop.test").status == 200
    assert len(backends.requests()) == 3


def test_one_entry_for_all_pods(caching: Ats, backends: Backends) -> None:
    answers = [caching.get(f"/pods?{FRESH}", host="shop.test") for _ in range(6)]
    assert len({answer.body for answer in answers}) == 1
    assert len(backends.requests()) == 1


@pytest.mark.parametrize("spelling", ["SHOP.test", "shop.test.", "shop.test:80"])
def test_one_entry_for_all_spellings_of_the_host(caching: Ats, backends: Backends, spelling: str) -> None:
    caching.get(f"/spelled?{FRESH}&as={spelling}", host="shop.test")
    caching.get(f"/spelled?{FRESH}&as={spelling}", host=spelling)
    assert len(backends.requests()) == 1


def test_entries_of_other_urls_hosts_schemes_and_ports_are_apart(caching: Ats, backends: Backends, authority: Authority) -> None:
    target = f"/apart?{FRESH}"
    tls = authority.client_context()
    caching.get(target, host="shop.test")
    caching.get(f"{target}&x=1", host="shop.test")
    caching.get(f"/apart;x?{FRESH}", host="shop.test")
    caching.get(target, host="other.test")
    caching.get(target, host="shop.test:8080")
    caching.get_tls(target, tls=tls, host="shop.test")
    assert len(backends.requests()) == 6
    caching.get_tls(target, tls=tls, host="shop.test:443", server_name="shop.test")
    assert len(backends.requests()) == 6


def test_entry_outlives_a_new_table(caching: Ats, backends: Backends) -> None:
    caching.get(f"/outlives?{FRESH}", host="shop.test")
    caching.put("more.yaml", [ingress("more", {"more.test": [path("shop")]})])
    caching.get(f"/outlives?{FRESH}", host="shop.test")
    assert len(backends.requests()) == 1


@pytest.mark.parametrize("query", ["x=1", "cache_control=no-store", "cache_control=private", f"{FRESH}&header=Set-Cookie:a=1"])
def test_only_what_says_so_is_cached(caching: Ats, backends: Backends, query: str) -> None:
    for _ in range(2):
        assert caching.get(f"/uncached?{query}", host="shop.test").status == 200
    assert len(backends.requests()) == 2


def test_our_own_answers_are_never_cached(caching: Ats) -> None:
    first, second = (caching.get("/", host="never.heard.of") for _ in range(2))
    assert first.status == second.status == 404
    assert first.header("x-request-id") != second.header("x-request-id")


def test_cached_answer_needs_no_pod(caching: Ats, backends: Backends) -> None:
    caching.get(f"/alone?{FRESH}", host="other.test")
    backends.behave(OTHER, "reset=before")
    try:
        assert caching.get(f"/alone?{FRESH}", host="other.test").status == 200
        assert caching.get(f"/alone?{FRESH}&uncached=1", host="other.test").status == 502
    finally:
        backends.behave(OTHER, "")
