"""The access log's preset and the controller's JSON lines: what programs read, and that no client can forge a field of either."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.compile import Build
from tests.harness import podnet, processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import app, ingress, path
from tests.harness.podnet import NODE_IP, PodNet

pytestmark = [
    pytest.mark.skipif(podnet.unavailable_reason() is not None, reason=str(podnet.unavailable_reason())),
]

PRESET = Path(__file__).resolve().parents[2] / "deploy/ats/logging.yaml"
BLUE = Pod(app="blue", ip="10.244.71.1")
SITE = [
    ingress("shop", {"blue.test": [path("blue"), path("nobody", "/none")]}),
    *app("blue", [BLUE.ip]),
    *app("nobody", []),
]
TRUSTED, UNTRUSTED = "10.244.9.9", "10.244.10.10"
RECORDS = {"proxy.config.log.max_secs_per_buffer": 1, "proxy.config.log.periodic_tasks_interval": 1}
FORGED = [("@Atsk8s-Ingress", "forged/forged"), ("@Atsk8s-Service", "forged:1"), ("@atsk8s-ingress", "forged/again")]


@pytest.fixture(scope="module")
def net() -> Generator[PodNet]:
    with PodNet() as made:
        yield made


@pytest.fixture(scope="module")
def ats(build: Build, net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ats]:
    """A server with both presets, and one pod."""
    given = ["--access-log-fields=on", "--log-format=json", "--trusted-proxies=10.244.9.0/24"]
    options = Options(address=NODE_IP, plugin_options=given, records=RECORDS)
    with (
        Backends((BLUE,), directory=tmp_path_factory.mktemp("backends"), place=net),
        ats_directory() as directory,
    ):
        made = Ats(build, directory, place=net, options=options)
        made.write("site.yaml", SITE)
        made.tree.write("logging.yaml", PRESET.read_text(encoding="utf-8"))
        with made:
            yield made
            made.allow(r"^\{")


def lines(ats: Ats) -> list[Mapping[str, Any]]:
    """Every whole line of the access log, which must be JSON each."""
    log = ats.tree.logs / "access.log"
    text = log.read_text(encoding="utf-8", errors="surrogateescape") if log.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def line_of(ats: Ats, mark: str) -> Mapping[str, Any]:
    """The one line of the request whose URL holds `mark`, once it is written."""
    found = processes.await_condition(
        f"{mark} is logged", lambda: [line for line in lines(ats) if mark in line["url"]], timeout_s=20
    )
    (line,) = found
    return line


def seen_id(answer: Any) -> str:
    """The request id that the pod was given."""
    return {name.lower(): value for name, value in answer.json()["headers"]}["x-request-id"]


def test_a_line_says_where_the_request_went_and_what_it_cost(ats: Ats) -> None:
    answer = ats.get("/mark-1?q=1", host="blue.test", source=UNTRUSTED)
    assert answer.status == 200
    line = line_of(ats, "/mark-1")
    assert line["client"] == UNTRUSTED
    assert (line["ingress"], line["service"]) == ("test/shop", "blue:80")
    assert line["endpoint"] == f"{BLUE.ip}:{BLUE.port}"
    assert (line["status"], line["method"], line["host"], line["url"]) == (200, "GET", "blue.test", "http://blue.test/mark-1?q=1")
    assert 0 <= line["upstream_ms"] <= line["total_ms"] + 1
    assert re.fullmatch(r"[0-9a-f]{16}", line["request_id"])
    assert line["request_id"] == seen_id(answer)
    assert isinstance(line["time"], float)
    assert line["cache"].startswith("TCP_")


@pytest.mark.parametrize(
    ("host", "status", "whose", "service"), [("blue.test", 200, "test/shop", "blue:80"), ("nobody.test", 404, "-", "-")]
)
def test_no_client_forges_a_field(ats: Ats, host: str, status: int, whose: str, service: str) -> None:
    mark = f"/forged-{status}"
    headers = [*FORGED, ("X-Request-Id", "forged-id"), ("X-Request-Id", "twice")]
    assert ats.get(f"{mark}?a=%22%2C%22status%22%3A1", host=host, source=UNTRUSTED, headers=headers).status == status
    line = line_of(ats, mark)
    assert (line["ingress"], line["service"], line["status"]) == (whose, service, status)
    assert "forged" not in line["request_id"]


def test_quotes_and_bytes_of_a_client_stay_inside_their_field(ats: Ats) -> None:
    n_before = len(lines(ats))
    request = b'GET /b"\\,"status":1,"x":"\xff HTTP/1.1\r\nHost: a"\\,"status":1,"x":"\xff\r\nConnection: close\r\n\r\n'
    assert b" 400 " in ats.raw(request)[:20]
    (line,) = processes.await_condition("it is logged", lambda: lines(ats)[n_before:], timeout_s=20)
    assert line["status"] == 400
    assert "x" not in line


@pytest.mark.parametrize(
    ("client", "sent", "is_kept"),
    [
        (TRUSTED, "7b0e-42_a.b:c/d+e=f@g", True),
        (UNTRUSTED, "7b0e-42", False),
        (TRUSTED, "a" * 129, False),
        (TRUSTED, 'a"b', False),
        (TRUSTED, "a b", False),
    ],
)
def test_a_trusted_proxys_sound_request_id_is_kept(ats: Ats, client: str, sent: str, is_kept: bool) -> None:
    mark = f"/id-{abs(hash((client, sent)))}"
    answer = ats.get(mark, host="blue.test", source=client, headers=[("X-Request-Id", sent)])
    assert (seen_id(answer) == sent) == is_kept
    assert line_of(ats, mark)["request_id"] == seen_id(answer)


def test_what_the_user_is_told_is_what_is_logged(ats: Ats) -> None:
    """The id in an answer of ours finds its line."""
    answer = ats.get("/none/mark-503", host="blue.test", source=UNTRUSTED)
    assert answer.status == 503
    line = line_of(ats, "/none/mark-503")
    assert line["request_id"] == line["answer_id"] == answer.header("x-request-id")
    assert answer.header("x-request-id").encode() in answer.body


def test_the_controllers_lines_are_json(ats: Ats) -> None:
    """One object a line on stderr, with an id; nothing of it in Traffic Server's own log."""
    ats.put("bad.yaml", [ingress("bad", {"blue.test": [path("blue")]}, namespace="other")])

    def rejected() -> list[Mapping[str, Any]]:
        text = ats.tree.output.read_text(encoding="utf-8")
        return [line for line in map(json.loads, re.findall(r"^\{.*\}$", text, re.MULTILINE)) if line.get("reason") == "Conflict"]

    line = processes.await_condition("the conflict is logged", rejected, timeout_s=20)[0]
    assert (line["level"], line["object"].split("/")[-1] in ("bad", "shop")) == ("warning", True)
    assert line["id"] in ("rejected", "accepted-with-conditions")
    assert "Conflict" not in (ats.tree.logs / "diags.log").read_text(encoding="utf-8")


def test_without_the_option_a_request_is_left_alone(build: Build, net: PodNet, tmp_path: Path) -> None:
    with Backends((Pod(app="plain", ip="10.244.72.1"),), directory=tmp_path, place=net), ats_directory() as directory:
        made = Ats(build, directory, place=net, options=Options(address=NODE_IP, records=RECORDS))
        made.write("site.yaml", [ingress("plain", {"plain.test": [path("plain")]}), *app("plain", ["10.244.72.1"])])
        made.tree.write("logging.yaml", PRESET.read_text(encoding="utf-8"))
        with made:
            answer = made.get("/plain", host="plain.test", source=UNTRUSTED, headers=[*FORGED, ("X-Request-Id", "mine")])
            assert seen_id(answer) == "mine"
            line = line_of(made, "/plain")
            assert (line["ingress"], line["service"], line["request_id"]) == ("-", "-", "mine")
