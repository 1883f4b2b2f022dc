"""The offline tools: what they print, and their exit statuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from atsk8s.__main__ import UNUSABLE, WRONG, main

INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: ns}
spec:
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /cart, pathType: Prefix, backend: {service: {name: cart, port: {number: 80}}}}
      - {path: /cart, pathType: Exact, backend: {service: {name: cart, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: ns}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: ns, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{port: 8080}]
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(INGRESS)
    return tmp_path


def checked(manifests: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What check --json says of each object."""
    main(["check", "--json", str(manifests), *options])
    return {one["object"]: one for one in json.loads(capsys.readouterr().out)["verdicts"]}


def test_check_accepts_what_is_right(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(manifests)]) == 0
    out = capsys.readouterr().out
    for name in ("Ingress ns/shop", "Service ns/cart", "EndpointSlice ns/cart-1"):
        assert f"accepted  {name}\n" in out
    assert out.endswith("3 looked at, 0 with something wrong\n")


def test_check_names_what_is_wrong_and_goes_on(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifests / "bad.yaml").write_text("- a list\n- in place of a map\n")
    (manifests / "more.yaml").write_text(INGRESS.replace("shop", "tea").replace("/cart, pathType: Prefix", "/t, pathType: Odd"))

    assert main(["check", str(manifests)]) == WRONG
    capsys.readouterr()
    found = checked(manifests, capsys)
    assert found["Ingress ns/shop"]["outcome"] == "accepted"
    assert found["Ingress ns/tea"]["outcome"] in ("partly", "rejected")
    assert "Odd" in json.dumps(found["Ingress ns/tea"])
    assert any("bad.yaml" in what and one["outcome"] == "rejected" for what, one in found.items())


def test_check_tells_a_conflict_from_a_mistake(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifests / "zz.yaml").write_text(INGRESS.split("---")[0].replace("namespace: ns", "namespace: other"))
    found = checked(manifests, capsys)
    assert {one["outcome"] for what, one in found.items() if what.startswith("Ingress ")} == {"accepted", "conflict"}
    assert main(["check", str(manifests)]) == WRONG


def test_what_is_none_of_ours_is_ignored_and_no_failure(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is deployed has more in it than an ingress reads."""
    (manifests / "app.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\n")
    (manifests / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n")
    foreign = INGRESS.split("---")[0].replace("name: shop,", "name: theirs,").replace("spec:", "spec:\n  ingressClassName: nginx")
    (manifests / "theirs.yaml").write_text(foreign)
    assert main(["check", str(manifests)]) == 0
    assert "hunter2" not in capsys.readouterr().out
    found = checked(manifests, capsys)
    assert found["Ingress ns/theirs"]["outcome"] == "ignored"
    assert found["app.yaml:1"]["outcome"] == "ignored"
    assert sum(one["outcome"] == "ignored" for one in found.values()) == 3


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("spec:\n  rules:", "spec:\n  rulez: []\n  rules:", "spec.rulez"),
        ("pathType: Prefix,", "pathtype: Prefix, pathType: Prefix,", "spec.rules[0].http.paths[0].pathtype"),
        ("port: {number: 80}}}}\n      -", "port: {number: 80, nodePort: 1}}}}\n      -", "paths[0].backend.service.port.nodePort"),
        ("spec: {ports:", "spec: {sessionAffinity: ClientIP, ports:", "spec.sessionAffinity"),
    ],
)
def test_a_field_without_effect_is_told(
    manifests: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, field: str
) -> None:
    assert old in INGRESS
    (manifests / "shop.yaml").write_text(INGRESS.replace(old, new, 1))
    assert main(["check", str(manifests)]) == WRONG
    out = capsys.readouterr().out
    assert "partly    " in out
    assert f"{field}: " in out
    assert "NoEffect: " in out


def test_check_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(INGRESS.encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert main(["check", "-"]) == 0
    assert "accepted  Ingress ns/shop" in capsys.readouterr().out


def test_explain_says_where_a_request_goes(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "http://SHOP.example/cart/1", "--manifests", str(manifests)]) == 0
    out = capsys.readouterr().out
    assert "PREFIX /cart" in out
    assert "10.0.0.1:8080" in out
    assert main(["explain", "http://shop.example/tea", "--manifests", str(manifests)]) == WRONG


def test_explain_says_why_not_the_others(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifests / "wild.yaml").write_text(
        INGRESS.split("---")[0].replace("host: shop.example", 'host: "*.example"').replace("shop", "wild")
    )
    (manifests / "zz.yaml").write_text(INGRESS.split("---")[0].replace("namespace: ns", "namespace: other"))
    assert main(["explain", "http://shop.example/cart", "--json", "--manifests", str(manifests)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["matched"] == "EXACT /cart"
    why = {one.get("match", one.get("virtual_host")): one["why_not"] for one in said["others"]}
    assert why["PREFIX /cart"] == "EXACT comes before PREFIX"
    assert "more specific" in why["*.example"]
    assert why["every host"] == "no object serves it"
    assert [one["reason"] for one in said["refused"]] == ["Conflict"] * len(said["refused"])
    assert said["refused"]

    main(["explain", "http://shop.example/cart/1", "--json", "--manifests", str(manifests)])
    why = {one.get("match"): one["why_not"] for one in json.loads(capsys.readouterr().out)["others"]}
    assert why["EXACT /cart"] == "it is for what is /cart"


def test_dump_is_json_for_programs(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "--json", "--manifests", str(manifests)]) == 0
    assert json.loads(capsys.readouterr().out)["virtual_hosts"][0]["host"] == "shop.example"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "/nonexistent"], "no such directory"),
        (["explain", "nonsense", "--manifests", "/"], "no URL with a host"),
        (["dump", "--admin", "127.0.0.1:1"], "--admin"),
        (["dump", "--state", "/nonexistent"], "No such file"),
        (["dump", "--state", "/etc/passwd"], "no last good state"),
        (["check", "/nonexistent", "--option", "tenancy=loose"], "--tenancy"),
    ],
)
def test_a_bad_call_says_why(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == UNUSABLE
    assert says in capsys.readouterr().err
