"""Kubeconfigs and service accounts: what is wrong with one must be said so that it can be put right."""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from atsk8s.errors import KubeError
from atsk8s.source.kube import credentials
from atsk8s.source.kube.credentials import Credentials, from_kubeconfig, from_service_account, from_token, is_expiring
from atsk8s.source.kube.transport import KubeTransport
from tests.harness.fakeapi import FakeApi
from tests.unit.source.self_signed import certificate

TOKEN = "token-that-nobody-may-see"


def config(server: str = "http://127.0.0.1:1", cluster: dict[str, Any] | None = None, **user: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }


def write(path: Path, content: dict[str, Any] | str | bytes) -> Path:
    file = path / "kubeconfig"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def complaint(path: Path, **options: Any) -> str:
    with pytest.raises(KubeError) as caught:
        from_kubeconfig(path, **options)
    text = str(caught.value)
    assert "--kubeconfig" in text
    assert TOKEN not in text
    return text


def test_token_in_the_file(tmp_path: Path) -> None:
    found = from_kubeconfig(write(tmp_path, config(token=TOKEN)))
    assert found.authorization == f"Bearer {TOKEN}"
    assert found.server == "http://127.0.0.1:1"
    assert TOKEN not in repr(found)


def test_token_in_a_file_beside_it_without_its_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    found = from_kubeconfig(write(tmp_path, config(tokenFile="token")))
    assert found.authorization == f"Bearer {TOKEN}"
    assert tmp_path / "token" in found.files


def test_client_certificate_leaves_no_key_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, _ = certificate(tmp_path, "client")
    inline = {
        "client-certificate-data": base64.b64encode(cert.read_bytes()).decode(),
        "client-key-data": base64.b64encode((tmp_path / "client.key").read_bytes()).decode(),
    }
    ca = {"certificate-authority-data": inline["client-certificate-data"]}
    made: list[Path] = []

    class Scratch(tempfile.TemporaryDirectory[str]):
        def cleanup(self) -> None:
            made.append(Path(self.name))
            assert len(list(made[-1].iterdir())) == 2  # the certificate, which is also the CA, and its key
            super().cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Scratch)
    for _ in range(2):  # the package's memory of its files must not outlive them
        assert from_kubeconfig(write(tmp_path, config("https://127.0.0.1:1", ca, **inline))).tls is not None
    assert len(made) == 2
    assert not any(directory.exists() for directory in made)


def test_inline_certificate_connects(tmp_path: Path) -> None:
    ca, context = certificate(tmp_path, "server")
    with FakeApi(tls=context) as api:
        there = KubeTransport(
            lambda: from_kubeconfig(write(tmp_path, config(api.url, {"certificate-authority": str(ca)}, token=TOKEN)))
        )
        assert there.get("/x", {}, 5).status == 200
        assert api.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        there.close()


def test_missing_file_and_directory(tmp_path: Path) -> None:
    assert "no such file" in complaint(tmp_path / "absent")
    assert "is a directory" in complaint(tmp_path)


def test_unreadable_file_says_who_we_are_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, config(token=TOKEN))
    file.chmod(0o400)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # what root, who runs the tests, would not meet

    monkeypatch.setattr(credentials, "open", refused, raising=False)
    text = complaint(file)
    assert f"as uid {os.geteuid()}" in text
    assert "mode 0400, owner uid" in text
    assert "chgrp" in text
    assert "chmod 0640" in text
    assert "proxy.config.plugin.load_elevated" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: b: c", "is not YAML in line 1"),
        (f"users:\n- user: {{token: {TOKEN}: }}: x", "is not YAML"),
        ("[1, 2]", "is no kubeconfig"),
        ("", "is no kubeconfig"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"\x00", "is not YAML"),
        ("[" * 100_000, "nested deeper"),
        ({"current-context": "x"}, "contexts has no entry named 'x'"),
        ({}, "current-context is not set"),
        ({"current-context": "x", "contexts": {"x": 1}}, "contexts has no entry"),
        ({"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "y"}}]}, "clusters has no entry"),
        (config(server=""), "no http or https"),
        (config(server="ftp://x"), "not an http or https URL"),
        (config(server="\x1bhttps://x"), "not an http or https URL"),
        (config(server="https://[x"), "not an http or https URL"),
        (config(token="a\nb"), "no HTTP header"),
        (config(tokenFile="absent"), "no such file"),
        (config("https://x", {"certificate-authority": "absent"}), "no such file"),
        (config("https://x", {"certificate-authority-data": "%%%"}), "kubeconfig"),
        (config("https://x", {"certificate-authority-data": base64.b64encode(b"junk").decode()}), "cannot be used"),
    ],
)
def test_malformed_file(tmp_path: Path, content: dict[str, Any] | str | bytes, says: str) -> None:
    text = complaint(write(tmp_path, content))
    assert says.replace("no http or https", "not an http or https") in text


def test_huge_file(tmp_path: Path) -> None:
    assert "more than" in complaint(write(tmp_path, b"x" * (5 * 1024 * 1024)))


def plugin(path: Path, script: str) -> dict[str, Any]:
    file = path / "plugin"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return config(
        exec={"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "env": [{"name": "X", "value": TOKEN}]}
    )


def credential(**status: str) -> str:
    return (
        "echo '" + json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}) + "'"
    )


def test_point_16_exec_plugin(tmp_path: Path) -> None:
    answer = credential(token=TOKEN, expirationTimestamp="2030-01-01T00:00:00Z")
    found = from_kubeconfig(write(tmp_path, plugin(tmp_path, answer)))
    assert found.authorization == f"Bearer {TOKEN}"
    assert found.expires_s == 1893456000
    assert not is_expiring(found, now_s=1893450000)
    assert is_expiring(found, now_s=1893455990)


def test_point_16_exec_plugin_is_run_again_before_its_token_expires(tmp_path: Path) -> None:
    runs = []

    def load() -> Credentials:
        runs.append(1)
        return Credentials(
            server=api.url, authorization=f"Bearer {len(runs)}", origin="test", expires_s=time.time() + 3 * len(runs) ** 9
        )

    with FakeApi() as api:
        there = KubeTransport(load)
        for _ in range(3):
            there.get("/x", {}, 5).close()
        assert [r.headers["authorization"] for r in api.requests] == ["Bearer 2", "Bearer 2", "Bearer 2"]
        there.close()


def test_point_16_exec_plugin_that_hangs_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    text = complaint(write(tmp_path, plugin(tmp_path, f"echo $$ > {pid_file}; tail -f /dev/null")), exec_timeout_s=0.5)
    assert "no answer in 0.5 s" in text
    assert "'./plugin'" in text
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"echo {TOKEN} >&2; exit 3", "ended with status 3"),
        (f"echo '{TOKEN}'", "no ExecCredential"),
        ("echo '{}'", "no ExecCredential"),
        ("echo '[]'", "no ExecCredential"),
        (credential(), "neither a token nor a client certificate"),
        (credential(token=TOKEN, expirationTimestamp="tomorrow"), "no ExecCredential"),
    ],
)
def test_point_16_exec_plugin_that_fails(tmp_path: Path, script: str, says: str) -> None:
    assert says in complaint(write(tmp_path, plugin(tmp_path, script)))


def test_point_16_exec_plugin_that_does_not_exist(tmp_path: Path) -> None:
    broken = config(exec={"apiVersion": "client.authentication.k8s.io/v1", "command": "./absent"})
    assert "cannot be started" in complaint(write(tmp_path, broken))


def test_service_account(tmp_path: Path) -> None:
    ca, _ = certificate(tmp_path, "ca")
    ca.rename(tmp_path / "ca.crt")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    found = from_service_account(environ, tmp_path)
    assert found.server == "https://[fd00::1]:443"
    assert found.authorization == f"Bearer {TOKEN}"
    assert found.proxy == ""
    (tmp_path / "token").write_text("\n")
    with pytest.raises(KubeError, match="is empty"):
        from_service_account(environ, tmp_path)
    (tmp_path / "token").unlink()
    with pytest.raises(KubeError, match="no such file"):
        from_service_account(environ, tmp_path)
    with pytest.raises(KubeError, match="--manifests"):
        from_service_account({}, tmp_path)


def test_server_and_token(tmp_path: Path) -> None:
    assert from_token("http://x:1/", TOKEN).authorization == f"Bearer {TOKEN}"
    with pytest.raises(KubeError, match="TS_SERVER"):
        from_token("x:1", TOKEN)
    with pytest.raises(KubeError, match="no such file"):
        from_token("https://x:1", TOKEN, str(tmp_path / "absent"))


def test_unreachable_server_is_no_error_at_start() -> None:
    there = KubeTransport(lambda: from_token("http://127.0.0.1:1"))
    with pytest.raises(KubeError, match="connection refused"):
        there.get("/x", {}, 1)


def test_name_that_does_not_resolve() -> None:
    there = KubeTransport(lambda: from_token("http://no-such-host.invalid:1"))
    with pytest.raises(KubeError, match="no-such-host"):
        there.get("/x", {}, 1)


@pytest.mark.parametrize("where", ["inline", "files", "token"])
def test_what_is_plain_is_read_as_the_package_reads_it(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start without the package's import must not be another start."""
    cert, _ = certificate(tmp_path, "client")
    files = {"client-certificate": cert.name, "client-key": "client.key"}
    inline = {f"{name}-data": base64.b64encode((tmp_path / file).read_bytes()).decode() for name, file in files.items()}
    (tmp_path / "token").write_text(f" {TOKEN}\n")
    user = {"inline": inline, "files": files, "token": {"tokenFile": "token"}}[where]
    cluster = {"tls-server-name": "api", "insecure-skip-tls-verify": True, "certificate-authority": cert.name}
    content = config("https://127.0.0.1:1/", cluster, **user)
    texts: list[tuple[str, ...]] = []
    found = []

    def context(*, what: str, **options: Any) -> None:
        texts.append(
            tuple(
                Path(value).read_text() if name.endswith("_file") and value else str(value)
                for name, value in sorted(options.items())
            )
        )

    monkeypatch.setattr(credentials, "_tls_context", context)
    for is_plain in (True, False):
        monkeypatch.setattr(credentials, "_is_plain", lambda *_, is_plain=is_plain: is_plain)
        found.append(from_kubeconfig(write(tmp_path, content)))
    assert found[0] == found[1]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("cluster", "user", "environ"),
    [
        ({"proxy-url": "http://p:1"}, {}, {}),
        ({}, {"auth-provider": {"name": "oidc"}}, {}),
        ({}, {"username": "u", "password": "p"}, {}),
        ({}, {"token": 12}, {}),
        ({"insecure-skip-tls-verify": "yes"}, {}, {}),
        ({}, {}, {"HTTPS_PROXY": "http://p:1"}),
        ({}, {}, {"no_proxy": "x"}),
    ],
)
def test_what_is_not_plain_is_the_packages(
    cluster: dict[str, Any], user: dict[str, Any], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert credentials._is_plain({"server": "https://x"}, {"token": TOKEN})
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert not credentials._is_plain({"server": "https://x"} | cluster, user)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    content = config(token=TOKEN)
    content["users"] *= 2
    assert "users has 2 entries named 'u'" in complaint(write(tmp_path, content))
