"""The offline tools: what they print, and their exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_check_accepts_what_is_right(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(manifests)]) == 0
    assert "accepted  Ingress ns/shop" in capsys.readouterr().out


def test_check_names_what_is_wrong_and_goes_on(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (manifests / "bad.yaml").write_text("- a list\n- in place of a map\n")
    (manifests / "more.yaml").write_text(INGRESS.replace("shop", "tea").replace("/cart, pathType: Prefix", "/t, pathType: Odd"))

    assert main(["check", "--json", str(manifests)]) == WRONG
    found = json.loads(capsys.readouterr().out)
    assert found["objects"]["Ingress ns/shop"] == []
    assert "Odd" in json.dumps(found["objects"]["Ingress ns/tea"])
    assert any("bad.yaml" in problem for problem in found["files"])


def test_explain_says_where_a_request_goes(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "http://SHOP.example/cart/1", "--manifests", str(manifests)]) == 0
    out = capsys.readouterr().out
    assert "PREFIX /cart" in out
    assert "10.0.0.1:8080" in out
    assert main(["explain", "http://shop.example/tea", "--manifests", str(manifests)]) == WRONG


def test_dump_is_json_for_programs(manifests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "--json", "--manifests", str(manifests)]) == 0
    assert json.loads(capsys.readouterr().out)["virtual_hosts"][0]["host"] == "shop.example"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "/nonexistent"], "no such directory"),
        (["explain", "nonsense", "--manifests", "/"], "no URL with a host"),
        (["dump", "--admin", "127.0.0.1:1"], "--admin"),
        (["check", "/nonexistent", "--option", "tenancy=loose"], "--tenancy"),
    ],
)
def test_a_bad_call_says_why(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == UNUSABLE
    assert says in capsys.readouterr().err
