"""A directory of YAML in place of a cluster."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from atsk8s.api.meta import ObjectKey
from atsk8s.errors import KubeError, Reason
from atsk8s.source import manifests
from atsk8s.source.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, KINDS, NAMESPACE, SECRET, SERVICE, AnyKind
from atsk8s.source.manifests import ManifestSource
from atsk8s.source.store import Change


def ingress(name: str, host: str = "x.example", more: str = "") -> str:
    return (
        f"apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n{more}"
        f"spec:\n  rules:\n  - host: {host}\n    http:\n      paths: []\n"
    )


def service(name: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: 80}}]\n"


class Looked:
    """A source that looks when told to, and what its listener heard."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.source = ManifestSource(directory, wait=lambda _: False, **options)
        self.heard: list[tuple[str, str, str]] = []
        self.source.subscribe(self._listen)
        self.source.look()

    def _listen(self, kind: AnyKind, changes: Sequence[Change[Any]]) -> None:
        for c in changes:
            what = "added" if c.old is None else "deleted" if c.new is None else "changed"
            self.heard.append((kind.name, str(c.key), what))

    def again(self) -> list[tuple[str, str, str]]:
        """Look again; what was heard."""
        self.heard = []
        self.source.look()
        return self.heard

    def names(self, kind: AnyKind = INGRESS) -> list[str]:
        return [str(key) for key in self.source.store(kind).snapshot()]

    def host(self, name: str) -> str:
        found = self.source.store(INGRESS).get(ObjectKey("default", name))
        assert found is not None
        return found.spec.rules[0].host

    def problems(self) -> list[tuple[str, Reason]]:
        return [(problem.origin, problem.reason) for problem in self.source.problems()]

    def messages(self) -> str:
        return "\n".join(problem.message for problem in self.source.problems())


def test_files_documents_and_lists(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(f"{ingress('b')}---\n{service('s')}---\n# nothing\n")
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: n, labels: {team: x}}}\n"
        "- apiVersion: networking.k8s.io/v1\n  kind: IngressClassList\n"
        "  items:\n  - {metadata: {name: c}, spec: {controller: x/y}}\n"
    )
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.json").write_text(
        '{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"e","namespace":"other",'
        '"labels":{"kubernetes.io/service-name":"s"}},"addressType":"IPv4","endpoints":[{"addresses":["127.0.0.1"]}]}'
    )
    (tmp_path / "README.md").write_text("not read: [")
    (tmp_path / ".hidden.yaml").write_text("not read: [")
    it = Looked(tmp_path)
    assert [it.names(kind) for kind in (INGRESS, SERVICE, NAMESPACE, INGRESS_CLASS, ENDPOINT_SLICE)] == [
        ["default/b"], ["default/s"], ["n"], ["c"], ["other/e"],
    ]  # fmt: skip
    assert it.problems() == []
    assert it.source.store(ENDPOINT_SLICE).snapshot()[ObjectKey("other", "e")].service_name == "s"
    assert all(state.synced and state.reason == "" for state in it.source.kinds())


def test_file_order_stands_for_age(tmp_path: Path) -> None:
    (tmp_path / "2.yaml").write_text(f"{ingress('c')}---\n{ingress('a')}")
    (tmp_path / "1.yaml").write_text(
        f"{ingress('b')}---\n{ingress('old', more='  creationTimestamp: 2020-01-02T03:04:05Z' + chr(10))}"
    )
    it = Looked(tmp_path)
    ages = {str(key): obj.metadata.created_s for key, obj in it.source.store(INGRESS).snapshot().items()}
    assert ages == {"default/b": 0, "default/old": 1577934245, "default/c": 2, "default/a": 3}


def test_versions_are_the_contents(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{ingress('a')}---\n{ingress('b')}")
    it = Looked(tmp_path)
    assert it.heard == [("Ingress", "default/a", "added"), ("Ingress", "default/b", "added")]
    assert it.again() == []
    file.write_text(f"# a comment\n{ingress('a')}---\n{ingress('b', host='other.example')}status: {{x: y}}\n")
    assert it.again() == [("Ingress", "default/b", "changed")]
    file.write_text(f"{ingress('b', host='other.example')}")
    assert ("Ingress", "default/a", "deleted") in it.again()
    file.unlink()
    assert it.again() == [("Ingress", "default/b", "deleted")]


def test_annotations_and_labels_are_trimmed(tmp_path: Path) -> None:
    more = '  annotations: {ingress.kubernetes.io/x: "1", foo/bar: y}\n  labels: {a: b}\n'
    (tmp_path / "a.yaml").write_text(ingress("a", more=more))
    found = Looked(tmp_path).source.store(INGRESS).snapshot()[ObjectKey("default", "a")]
    assert found.metadata.annotations == {"ingress.kubernetes.io/x": "1"}
    assert found.metadata.labels == {}


def test_secrets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pem = "-----BEGIN SECRET-----\nabc\n"
    wrapped = base64.encodebytes(b"k" * 100).decode().replace("\n", "\n    ")
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\n"
    (tmp_path / "a.yaml").write_text(
        head % "s" + f"type: kubernetes.io/tls\n"
        f"stringData: {{tls.crt: {json.dumps(pem)}}}\ndata:\n  tls.crt: AAAA\n  tls.key: |\n    {wrapped}\n"
        "---\n" + head % "opaque" + "type: Opaque\ndata: {x: aGVsbG8=}\n"
        "---\n" + head % "bad" + "type: kubernetes.io/tls\ndata: {tls.key: '*** private ***'}\n"
        "---\n" + head % "odd" + "type: kubernetes.io/tls\nstringData: {tls.key: 5}\n"
        "---\n" + head % "list" + "type: kubernetes.io/tls\ndata: [private]\n"
    )
    it = Looked(tmp_path)
    assert it.names(SECRET) == ["default/s"]
    data = it.source.store(SECRET).snapshot()[ObjectKey("default", "s")].data
    assert data["tls.crt"].reveal() == pem.encode()
    assert data["tls.key"].reveal() == b"k" * 100
    assert [reason for _, reason in it.problems()] == [Reason.UNSUPPORTED, Reason.MALFORMED, Reason.MALFORMED, Reason.MALFORMED]
    assert "private" not in it.messages() + caplog.text + repr(it.source.store(SECRET).snapshot())
    assert sorted(str(key) for key in it.source.store(SECRET).rejected) == [
        f"default/{n}" for n in ("bad", "list", "odd", "opaque")
    ]


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        ("- a\n- b\n", Reason.MALFORMED, "is a list, expected an object"),
        ("just words\n", Reason.MALFORMED, "is a string"),
        ("a: 1\n", Reason.MALFORMED, "has no kind"),
        ("kind: Deployment\napiVersion: apps/v1\n", Reason.UNKNOWN_KIND, "'Deployment' is not used here"),
        (
            "kind: Ingress\napiVersion: extensions/v1beta1\nmetadata: {name: a}\n",
            Reason.UNSUPPORTED,
            "write it as networking.k8s.io/v1",
        ),
        ("kind: Ingress\nmetadata: {name: a}\n", Reason.UNSUPPORTED, "write it as"),
        ("kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: [a]\n", Reason.MALFORMED, "metadata is a list"),
        ("kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {}\n", Reason.MALFORMED, "metadata.name is empty"),
        ("kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: A_b}\n", Reason.MALFORMED, "is no name"),
        ("kind: Ingress\napiVersion: networking.k8s.io/v1\nmetadata: {name: a, namespace: b/c}\n", Reason.MALFORMED, "is no name"),
        (ingress("a").replace("paths: []", "paths: {a: b}"), Reason.MALFORMED, "$.spec.rules[0].http.paths"),
        (ingress("a", more="  annotations: {x: true}\n"), Reason.MALFORMED, "Expected `str`, got `bool`"),
        (ingress("a", more="  annotations: [x]\n"), Reason.MALFORMED, "annotations"),
        (service("a").replace("80", "99999"), Reason.MALFORMED, "65535"),
        (service("a").replace("80", "'80'"), Reason.MALFORMED, "Expected `int"),
        ("kind: List\napiVersion: v1\nitems: {a: b}\n", Reason.MALFORMED, "items is a map"),
        ("[" * 100_000, Reason.TOO_LARGE, "nested deeper"),
        ("a: &a [x]\n" + "b: *c\n", Reason.MALFORMED, "stands for nothing"),
        ("a: 'x\n", Reason.MALFORMED, "not YAML"),
        ("a: " + "x" * 10_000_000, Reason.TOO_LARGE, "split the file"),
    ],
)
def test_fault_costs_its_document(tmp_path: Path, text: str, reason: Reason, says: str) -> None:
    (tmp_path / "1.yaml").write_text(text if len(text) > 8_000_000 else f"{ingress('before')}---\n{text}\n---\n{ingress('after')}")
    (tmp_path / "2.yaml").write_text(ingress("other"))
    it = Looked(tmp_path)
    assert [found for _, found in it.problems()] == [reason]
    assert says in it.messages()
    assert it.problems()[0][0].startswith("1.yaml")
    assert set(it.names()) == {"default/other"} | ({"default/before", "default/after"} if len(text) < 8_000_000 else set())
    assert all(state.synced for state in it.source.kinds())


def test_origin_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"{service('a')}---\n- oops\n")
    assert Looked(tmp_path).problems() == [("x.yaml:6", Reason.MALFORMED)]


def test_alias_bomb_and_its_like(tmp_path: Path) -> None:
    levels = "".join(f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 10)}]\n" for i in range(1, 12))
    (tmp_path / "bomb.yaml").write_text(f"x0: &x0 lol\n{levels}")
    started = monotonic()
    assert [reason for _, reason in Looked(tmp_path).problems()] == [Reason.TOO_LARGE]
    assert monotonic() - started < 2


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "half.json").write_text('{"kind": ')
    (tmp_path / "surrogate.json").write_text('{"kind":"Ingress","apiVersion":"networking.k8s.io/v1","metadata":{"name":"\\ud800"}}')
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + ingress("bom").encode())
    it = Looked(tmp_path)
    assert it.names() == ["default/bom"]
    assert {origin.split(":")[0] for origin, _ in it.problems()} == {"bytes.yaml", "deep.json", "half.json", "surrogate.json"}


def test_odd_files_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "absent")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "directory.yaml" / "a.yaml").write_text(ingress("a"))
    it = Looked(tmp_path)
    assert it.names() == ["default/a"]
    assert it.again() == []


def test_file_that_became_illegible_keeps_what_it_had(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{ingress('a')}---\n{ingress('b')}")
    it = Looked(tmp_path)
    for text in (f"{ingress('a', host='new.example')}---\n{{ broken", "x" * 9_000_000, b"\xff"):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert it.again() == []
        assert it.host("a") == "x.example"
        assert len(it.problems()) == 1
    file.write_text(ingress("a", host="new.example"))
    it.again()
    assert it.host("a") == "new.example"
    assert it.names() == ["default/a"]
    assert it.problems() == []


def test_object_that_became_invalid_keeps_its_former_version(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{ingress('a')}---\n{ingress('b')}")
    it = Looked(tmp_path)
    file.write_text(f"{ingress('a').replace('paths: []', 'paths: 7')}---\n{ingress('b', host='new.example')}")
    assert ("Ingress", "default/b", "changed") in it.again()
    assert (it.host("a"), it.host("b")) == ("x.example", "new.example")
    assert [str(key) for key in it.source.store(INGRESS).rejected] == ["default/a"]
    file.write_text(ingress("b", host="new.example"))
    it.again()
    assert it.names() == ["default/b"]


def test_duplicates_the_first_in_file_order_wins(tmp_path: Path) -> None:
    (tmp_path / "2.yaml").write_text(f"{ingress('a', host='second.example')}---\n{ingress('a', host='third.example')}")
    (tmp_path / "1.yaml").write_text(ingress("a", host="first.example"))
    it = Looked(tmp_path)
    assert it.host("a") == "first.example"
    assert it.problems() == [("2.yaml:1", Reason.DUPLICATE), ("2.yaml:10", Reason.DUPLICATE)]
    assert "is already in 1.yaml:1" in it.messages()
    (tmp_path / "1.yaml").unlink()
    it.again()
    assert it.host("a") == "second.example"


def test_namespaces(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yaml").write_text(ingress(name, more=f"  namespace: {name}\n"))
    (tmp_path / "n.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: two, namespace: ignored}}")
    it = Looked(tmp_path, watch_namespaces=("one", "two"), ignore_namespaces=("two",))
    assert it.names() == ["one/one"]
    assert it.names(NAMESPACE) == ["two"]


def test_mounted_config_map_that_is_exchanged(tmp_path: Path) -> None:
    """The kubelet writes a new hidden directory and renames a link to it over the old link; the files' own links never change."""

    def fill(name: str, host: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        (directory / "a.yaml").write_text(ingress("a", host=host))
        return directory

    fill("..2026_01", "one.example")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    it = Looked(tmp_path)
    assert it.host("a") == "one.example"
    fill("..2026_02", "two.example")
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert it.again() == [("Ingress", "default/a", "changed")]
    assert it.host("a") == "two.example"


def test_directory_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "m"
    directory.mkdir()
    (directory / "a.yaml").write_text(ingress("a"))
    it = Looked(directory)
    directory.rename(tmp_path / "away")
    assert it.again() == []
    assert it.names() == ["default/a"]
    assert "no such directory" in it.source.kinds()[0].reason
    (tmp_path / "away").rename(directory)
    assert it.again() == []
    assert it.source.kinds()[0].reason == ""


def test_directory_that_is_unusable_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KubeError, match="no such directory"):
        ManifestSource(tmp_path / "absent").start()
    (tmp_path / "file").write_text("")
    with pytest.raises(KubeError, match="is no directory"):
        ManifestSource(tmp_path / "file").start()

    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(KubeError, match=f"as uid {os.geteuid()}.*chmod"):
        ManifestSource(tmp_path).start()


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "MAX_FILES", 2)
    for i in range(3):
        (tmp_path / f"{i}.yaml").touch()
    with pytest.raises(KubeError, match="more than 2 files"):
        ManifestSource(tmp_path).start()


def test_file_that_is_just_being_written_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(ingress("a"))
    halves = [ingress("a")[:60], ingress("a", host="new.example")]
    it = Looked(tmp_path)

    def writer(seconds: float) -> bool:
        if seconds == manifests.QUIET_S and halves:
            file.write_text(halves.pop(0))
        return False

    it.source._wait = writer
    file.write_text("")
    it.heard.clear()
    it.source.look()
    assert it.heard == [("Ingress", "default/a", "changed")]
    assert it.host("a") == "new.example"
    assert it.problems() == []


def test_thread_sees_a_change_within_its_bound(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path)
    changed = threading.Event()
    source.subscribe(lambda _, changes: changed.set() if changes else None)
    source.start()
    source.start()
    try:
        assert source.wait_synced(5)
        (tmp_path / "a.yaml").write_text(ingress("a"))
        assert changed.wait(5)
        assert manifests.POLL_S + manifests.QUIET_S <= 0.25
    finally:
        assert source.stop()
    assert source.stop()
    assert not source.wait_synced(0)
    assert not any(thread.name == "watch-manifests" for thread in threading.enumerate())


def test_stop_before_start(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path)
    assert source.stop()
    source.start()
    assert len(source.kinds()) == len(KINDS)
    assert not source.kinds()[0].synced


def test_bug_of_ours_does_not_end_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Looked(tmp_path)
    (tmp_path / "a.yaml").write_text(ingress("a"))
    with monkeypatch.context() as patched:
        patched.setattr(manifests, "to_object", lambda *_: 1 / 0)
        assert it.again() == []
        assert "internal error" in it.source.kinds()[0].reason
    it.again()
    assert it.names() == ["default/a"]
