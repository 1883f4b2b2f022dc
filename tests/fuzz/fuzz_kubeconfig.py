"""A kubeconfig, and what its exec plugin answers.

The input is the file and, behind a NUL byte, what any program that it names would print: none is run, no connection is made, and no
file is opened outside the directory that the kubeconfig lies in.
"""

from __future__ import annotations

import logging
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import kubernetes.config.kube_config  # not while files may not be opened  # noqa: F401

from atsk8s.errors import KubeError
from atsk8s.source.kube.credentials import from_kubeconfig, is_expiring
from tests.fuzz.fuzz_manifest import mutated_text
from tests.fuzz.made_pairs import CERTIFICATE_MARK, KEY_MARK, with_pair
from tests.fuzz.target import MutateBytes, Target

TOKEN = "token-that-nobody-may-see"  # in the corpus
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_TOKEN_FIELD = re.compile(rb'"?token"?: "?' + TOKEN.encode())
_FORBIDDEN = re.compile(
    r"socket\.(connect|getaddrinfo|gethostby.*|bind|sendto)|os\.(system|exec|posix_spawn|fork.*)|subprocess\.Popen"
)
_guarded: list[str] = []  # directories whose files may be opened; empty: no guard


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if not _guarded:
        return
    if _FORBIDDEN.fullmatch(event):
        raise OSError(1, f"{event} while fuzzing")
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        own = (*_guarded, "/dev/shm/atsk8s-", f"{sys.prefix}/", "/usr/lib/", "/usr/share/zoneinfo/")
        if not path.startswith(own):
            raise FileNotFoundError(2, "outside, while fuzzing")


sys.addaudithook(_guard)  # stays for good: that is why it has a switch


class _Program:
    """What subprocess.Popen would have started."""

    def __init__(self, answer: bytes, **options: Any) -> None:
        self.pid = 0
        self.returncode = 1 if answer.startswith(b"!") else 0
        self._answer: bytes | str = answer.decode("utf-8", "replace") if options.get("universal_newlines") else answer

    def communicate(self, timeout: float | None = None) -> tuple[bytes | str, bytes | str]:
        return self._answer, type(self._answer)()

    def wait(self) -> int:
        return self.returncode


@contextmanager
def _alone(directory: str, answer: bytes) -> Iterator[None]:
    def start(command: list[Any], **options: Any) -> _Program:
        if any(not isinstance(word, str) or "\0" in word for word in command):
            raise ValueError("embedded null byte")  # as the real one says
        return _Program(answer, **options)

    with mock.patch.object(subprocess, "Popen", start):
        _guarded.append(f"{directory}/")
        try:
            yield
        finally:
            _guarded.clear()


def check(data: bytes) -> None:
    """There are credentials, or a KubeError; neither shows the token."""
    logging.getLogger().setLevel(logging.CRITICAL)  # the package says some things there
    config, _, answer = with_pair(data).partition(b"\0")
    with tempfile.TemporaryDirectory(prefix="atsk8s-fuzz-", dir=_MEMORY) as name:
        directory = Path(name)
        (directory / "kubeconfig").write_bytes(config)
        (directory / "file").write_text(TOKEN)
        with _alone(name, answer):
            try:
                found = from_kubeconfig(directory / "kubeconfig")
            except KubeError as error:
                shown = str(error)
            else:
                is_expiring(found, 0.0)
                shown = repr(found)
                assert found.server.startswith(("http://", "https://"))
                assert all(0x20 <= ord(char) <= 0x7E for char in found.authorization)
    if data.count(TOKEN.encode()) == 1 and _TOKEN_FIELD.search(data):
        assert TOKEN not in shown, "the message shows the token"


def mutate(data: bytes, rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """As with manifests; or what the program prints."""
    config, nul, answer = data.partition(b"\0")
    if nul and rng.random() < 0.3:
        return config + nul + mutate_bytes(answer, len(answer) + 64)
    return mutated_text(config, WORDS, rng, mutate_bytes).replace(b"\0", b"") + nul + answer


WORDS = (
    *("apiVersion", "kind", "current-context", "contexts", "clusters", "users", "name", "context", "cluster", "user", "server"),
    *(
        "certificate-authority",
        "certificate-authority-data",
        "insecure-skip-tls-verify",
        "tls-server-name",
        "proxy-url",
        "namespace",
    ),
    *(
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "username",
        "password",
    ),
    *("exec", "command", "args", "env", "value", "interactiveMode", "provideClusterInfo", "auth-provider", "config", "id-token"),
    *("oidc", "gcp", "access-token", "expiry", "cmd-path", "cmd-args", "idp-issuer-url", "refresh-token", "client-id", "file"),
    *("client-secret", "http://127.0.0.1:1", "https://127.0.0.1:1", "status", "clientCertificateData", "clientKeyData"),
    *("expirationTimestamp", "client.authentication.k8s.io/v1", TOKEN, "e30.eyJleHAiOjF9.e30"),
    *(CERTIFICATE_MARK.decode(), KEY_MARK.decode()),
)
TARGET = Target(check=check, words=WORDS, mutate=mutate)
