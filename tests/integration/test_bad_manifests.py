"""Bad files and objects in --manifests, hostile ones too: each costs itself alone, says what is wrong, and can be mended."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import Json, app, ingress, path
from tests.harness.patience import stretched

HOST, BAD_HOST = "good.test", "bad.test"
GOOD_TIMEOUT_S = 5.0  # how late a good change may come while a hostile file is read


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Generator[Pod]:
    """One pod on loopback."""
    (port,) = processes.free_ports(processes.LOOPBACK, "127.0.0.2", 1)
    made = Pod(app="app", ip="127.0.0.2", port=port)
    with Backends([made], directory=tmp_path_factory.mktemp("backends")):
        yield made


@pytest.fixture(scope="module")
def running(build: Build, pod: Pod) -> Generator[Ats]:
    """One server for the module over a good file, which each test leaves as it was."""
    with ats_directory() as directory:
        made = Ats(build, directory)
        made.write("good.yaml", [ingress("good", {HOST: [path("app")]}), *app("app", [pod.ip], port=pod.port)])
        with made:
            yield made


@pytest.fixture
def ats(running: Ats) -> Generator[Ats]:
    """The server; afterwards the test's file is gone, and with it every condition and nothing else."""
    yield running
    for one in running.manifests.iterdir():
        if one.name != "good.yaml":
            one.unlink()
    processes.await_condition("just the good file's host is left", lambda: hosts(running) == [HOST])
    processes.await_condition("no condition is left", lambda: running.admin("/conditions").json() == [])
    expect_good(running)
    running.allow(r"\[atsk8s\] (manifest rejected|rejected|accepted with conditions) ")
    running.check_logs()


def hosts(ats: Ats) -> list[str]:
    """Every host in the table."""
    return [one["host"] for one in ats.admin("/dump").json()["virtual_hosts"]]


def expect_good(ats: Ats) -> None:
    """The good host is answered, and nothing of ours has failed."""
    assert ats.get("/", host=HOST).status == 200
    assert ats.admin("/readyz").status == 200
    assert ats.counter("atsk8s_controller_errors_total") == 0


def write(ats: Ats, name: str, content: str | bytes) -> None:
    """Put a file of any content into the manifests directory, in one step."""
    aside = ats.directory / f".{name}.new"
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.chmod(0o644)
    aside.replace(ats.manifests / name)


def expect_said(ats: Ats, *wanted: str) -> str:
    """Wait until a line of the log since the test's start has all of these; return it."""

    def probe() -> str:
        lines = [line for line in ats.log().splitlines() if all(one in line for one in wanted)]
        return lines[-1] if lines else ""

    return processes.await_condition(f"the log says {wanted}", probe, timeout_s=30)


def bomb(levels: int = 9) -> str:
    """Aliases of aliases: ten to the ninth values in half a kilobyte."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("kind: Ingress\n  bad: [", ("not YAML", "hostile.yaml")),
        ("\tkind: Ingress", ("not YAML", "hostile.yaml")),
        (b"\xff\xfe\x00k", ("not UTF-8", "hostile.yaml")),
        ("- a\n- list", ("is a list", "expected an object")),
        ("just text", ("is a string", "expected an object")),
        ("apiVersion: v1\nmetadata: {name: x}", ("has no kind",)),
        ("apiVersion: v1\nkind: Frobnicator\nmetadata: {name: x}", ("Frobnicator", "is not used here")),
        ("apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: x}", ("extensions/v1beta1", "networking.k8s.io/v1")),
        ("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: []", ("metadata is a list",)),
        ("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: Bad_Name}", ("metadata.name is no name",)),
        ("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x}\nspec: [1]", ("hostile.yaml", "Malformed")),
        ("kind: Ingress\nkind: Service", ("'kind' is given twice",)),
        ("a: !!python/object/apply:os.system [id]", ("tag", "remove it")),
        ("a: &a [*a]", ("stands for nothing, or for itself",)),
        ("[" * 100_000, ("hostile.yaml",)),
        ("{a: " * 100_000, ("hostile.yaml",)),
        ("[" * 50_000 + "]" * 50_000, ("nested deeper than",)),
        (bomb(), ("an alias counts as all that it stands for",)),
        ("x: " + "y" * (10 << 20), ("more than 8388608 bytes", "split the file")),
        ('x: "' + "y" * (7 << 20) + '"\nkind: Ingress', ("hostile.yaml",)),
        ("---\n" * 200_000, ("hostile.yaml", "documents")),
    ],
    ids=[
        "cut",
        "tab",
        "binary",
        "list",
        "text",
        "no-kind",
        "unknown-kind",
        "old-version",
        "metadata-list",
        "bad-name",
        "spec-list",
        "twice",
        "python-tag",
        "self-alias",
        "brackets",
        "braces",
        "closed-brackets",
        "alias-bomb",
        "10-mb",
        "7-mb-string",
        "documents",
    ],
)
def test_a_file_that_is_no_manifest(ats: Ats, pod: Pod, content: str | bytes, wanted: tuple[str, ...]) -> None:
    """It is named in the log with what is wrong; another file beside it is taken up meanwhile, and so is its own mended version."""
    write(ats, "hostile.yaml", content)
    ats.write("late.yaml", [ingress("late", {"late.test": [path("app")]})])
    begun_s = time.monotonic()
    processes.await_condition("a good file beside it is seen", lambda: ats.get("/", host="late.test").status == 200, timeout_s=30)
    assert time.monotonic() - begun_s < stretched(GOOD_TIMEOUT_S)
    assert len(expect_said(ats, *wanted)) < 4096
    expect_good(ats)
    ats.write("hostile.yaml", [ingress("mended", {"mended.test": [path("app")]})])
    processes.await_condition("the mended file is seen", lambda: ats.get("/", host="mended.test").status == 200)


def test_a_file_that_breaks_keeps_what_it_had(ats: Ats) -> None:
    """A syntax error in a file that was good: nobody knows what was meant, so its objects stay."""
    ats.put("once-good.yaml", [ingress("kept", {"kept.test": [path("app")]})])
    write(ats, "once-good.yaml", "kind: Ingress\n  oops: [")
    expect_said(ats, "once-good.yaml", "not YAML")
    assert ats.get("/", host="kept.test").status == 200


def test_a_bad_document_among_good_ones(ats: Ats) -> None:
    """Of three documents in one file the second is malformed: the first and the third are served."""
    good = [json.dumps(ingress(name, {f"{name}.test": [path("app")]})) for name in ("first", "third")]
    write(ats, "three.yaml", f"{good[0]}\n---\nkind: [\n---\n{good[1]}\n")
    for name in ("first", "third"):
        processes.await_condition(f"{name} is served", lambda name=name: ats.get("/", host=f"{name}.test").status == 200)  # type: ignore[misc]


@pytest.mark.skipif(
    Path("/proc/self/status").read_text().find("Uid:\t0\t") < 0, reason="needs root: only then is the server another user"
)
def test_a_file_that_cannot_be_read(ats: Ats) -> None:
    write(ats, "secret.yaml", "kind: Ingress")
    (ats.manifests / "secret.yaml").chmod(0o400)
    expect_said(ats, "secret.yaml", "cannot be read as uid")
    expect_good(ats)


# --- Ingresses that an API server would refuse ----------------------------------------------------------------------------------

Spoil = Callable[[Json], None]


def _paths(spec: Json) -> list[Json]:
    return spec["rules"][0]["http"]["paths"]  # type: ignore[index, no-any-return]


def _set(**fields: object) -> Spoil:
    def spoil(spec: Json) -> None:
        _paths(spec)[0].update(fields)

    return spoil


def _host(host: object) -> Spoil:
    def spoil(spec: Json) -> None:
        spec["rules"][0]["host"] = host  # type: ignore[index]

    return spoil


def _http(http: object) -> Spoil:
    def spoil(spec: Json) -> None:
        spec["rules"][0]["http"] = http  # type: ignore[index]

    return spoil


def _backend(backend: object) -> Spoil:
    return _set(backend=backend)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_set(pathType="Regex"), "InvalidPath"),
        (_set(pathType=None), None),
        (_set(pathType=7), "Malformed"),
        (_set(path="no-slash"), "InvalidPath"),
        (_set(path="/a/../../b"), "InvalidPath"),
        (_set(path="/%zz"), "InvalidPath"),
        (_set(path="/a\x00b"), "InvalidPath"),
        (_set(path=["/"]), "Malformed"),
        (_set(path="/" + "x" * 100_000), None),
        (_host("bad host"), "InvalidHost"),
        (_host("*.*.test"), "InvalidHost"),
        (_host("a..test"), "InvalidHost"),
        (_host("x" * 64 + ".test"), "InvalidHost"),
        (_host("[::1]"), "InvalidHost"),
        (_host({"a": 1}), "Malformed"),
        (_http("text"), "Malformed"),
        (_http({"paths": None}), "MissingRulesAreFine"),
        (_http(None), "MissingRulesAreFine"),
        (_backend(None), None),
        (_backend({}), "InvalidBackend"),
        (_backend({"service": {"name": "app"}}), None),
        (_backend({"service": {"name": "app", "port": {}}}), "InvalidBackend"),
        (_backend({"service": {"name": "app", "port": {"number": 80, "name": "http"}}}), "InvalidBackend"),
        (_backend({"service": {"name": "app", "port": {"number": 70000}}}), "InvalidBackend"),
        (_backend({"service": {"name": "app", "port": {"number": -1}}}), "InvalidBackend"),
        (_backend({"service": {"name": "app", "port": {"number": 1 << 70}}}), "InvalidBackend"),
        (_backend({"service": {"name": "../etc", "port": {"number": 80}}}), "InvalidBackend"),
        (_backend({"resource": {"kind": "Bucket", "name": "x"}}), "Unsupported"),
        (_backend({"service": {"name": "app", "port": {"number": 80}}, "resource": {"kind": "B", "name": "x"}}), "InvalidBackend"),
    ],
)
def test_an_ingress_that_no_api_server_would_take(ats: Ats, spoil: Spoil, reason: str | None) -> None:
    """Rejected, or its path left out, with a reason; never a route that nobody wrote, and never anything of the others."""
    bad = ingress("bad", {BAD_HOST: [path("app", "/spoiled"), path("app", "/fine")]})
    spoil(bad["spec"])  # type: ignore[arg-type]
    ats.write("bad.yaml", [bad, ingress("beside", {"beside.test": [path("app")]})])
    processes.await_condition("the one beside it is seen", lambda: ats.get("/", host="beside.test").status == 200)
    if reason == "MissingRulesAreFine":
        assert ats.admin("/conditions").json() == []
        assert ats.get("/fine", host=BAD_HOST).status == 404
    else:
        found = [one for one in ats.admin("/conditions").json() if one["kind"] == "Ingress"]
        assert found, "nothing is said of it"
        assert reason is None or reason in {one["reason"] for one in found}, found
        assert all(len(one["message"]) < 2000 for one in found)
        # Either the whole object is rejected, or just the path: then its neighbour works.
        whole = any(one["fatal"] for one in found)
        assert ats.get("/fine", host=BAD_HOST).status == (404 if whole else 200)
    assert ats.get("/spoiled", host=BAD_HOST).status == 404
    expect_good(ats)


def test_an_object_that_turns_bad_keeps_its_former_version(ats: Ats) -> None:
    """Malformed now, usable before: what was published stays, with a condition, until it is mended or removed."""
    good = ingress("turns", {"turns.test": [path("app")]})
    ats.put("turns.yaml", [good])
    bad = copy.deepcopy(good)
    bad["spec"]["rules"] = "text"  # type: ignore[index]
    ats.write("turns.yaml", [bad])
    expect_said(ats, "turns.yaml", "Malformed")
    assert ats.get("/", host="turns.test").status == 200
    ats.change(lambda: (ats.manifests / "turns.yaml").unlink())
    assert ats.get("/", host="turns.test").status == 404


def test_the_directory_itself_goes_and_comes_back(ats: Ats) -> None:
    """Gone is not empty: everything stays; when it is back it is watched again."""
    aside = ats.directory / "manifests.aside"
    ats.manifests.rename(aside)
    try:
        expect_said(ats, "manifests cannot be read", "no such directory")
        assert ats.get("/", host=HOST).status == 200
    finally:
        aside.rename(ats.manifests)
    ats.allow("manifests cannot be read")
    ats.put("back.yaml", [ingress("back", {"back.test": [path("app")]})])
    assert ats.get("/", host="back.test").status == 200
