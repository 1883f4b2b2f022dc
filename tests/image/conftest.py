"""The image, built once by docker/image.py, its layers kept in the cache directory; and what its containers serve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.harness import podnet
from tests.harness.authority import Authority
from tests.harness.manifests import app, ingress, path, tls_secret
from tests.image.containers import remove_abandoned
from tests.image.pod import HOST, POD_IP, POD_PORT, SNIPPET_HOST, SNIPPET_SAYS
from tests.image.verb import CHECKOUT, image_verb

TAG = "localhost/atsk8s:test"


@pytest.fixture(scope="session")
def podman() -> Generator[list[str]]:
    """The command line of podman with a store of its own, which survives and makes the next build quick."""
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap and podman in a namespace without users of its own")
    if reason := podnet.unavailable_reason():
        pytest.skip(reason)
    try:
        tool = image_verb.choose_tool(wanted="podman", store="private")
    except image_verb.ImageError as error:
        pytest.skip(f"no podman, which alone can run containers in a namespace of the test's own: {error}")
    command = ["env", *(f"{name}={value}" for name, value in tool.env.items()), "podman"]
    remove_abandoned(command)
    yield command
    image_verb.remove_residue()


@pytest.fixture(scope="session")
def image(podman: list[str]) -> str:
    """The name of the image, built from this checkout."""
    command = [sys.executable, str(CHECKOUT / "docker/image.py"), "--tag", TAG, "--tool=podman", "--store=private"]
    built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert built.returncode == 0, built.stdout[-6000:]
    return TAG


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed the certificate of HOST."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca.crt")


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Path:
    """A directory for --manifests: HOST with a certificate, and SNIPPET_HOST whose Ingress has Lua; the only pod is at POD_IP."""
    directory = tmp_path_factory.mktemp("manifests")
    pair = authority.pair([HOST])
    objects = [
        *app("shop", [POD_IP], port=POD_PORT),
        tls_secret("shop", pair.certificate, pair.key),
        ingress("shop", {HOST: [path("shop")]}, tls={"shop": [HOST]}),
        ingress(
            "snippet", {SNIPPET_HOST: [path("shop")]}, annotations={"server-snippet": f"ts.http.set_resp(403, '{SNIPPET_SAYS}')"}
        ),
    ]
    for number, document in enumerate(objects):  # JSON is YAML
        (directory / f"{number}.yaml").write_text(json.dumps(document))
    directory.chmod(0o755)  # pytest makes it 0700; uid 10001 reads it
    return directory
