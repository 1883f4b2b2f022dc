"""One control plane, one pod network and one Traffic Server for all e2e tests but those that start their own."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.compile import Build
from tests.e2e.cluster import MANDATORY, OPTIONAL, Cluster, watching
from tests.e2e.session import authority as authority
from tests.e2e.session import pytest_runtest_protocol as pytest_runtest_protocol
from tests.e2e.session import shared_net as shared_net
from tests.harness.ats import Ats
from tests.harness.authority import Authority
from tests.harness.controlplane import ControlPlane
from tests.harness.podnet import PodNet

USERS = ("ingress", "narrow")  # the session's server; tests that allow less


@pytest.fixture(scope="session")
def shared_plane(shared_net: PodNet, tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    """The control plane; its user "ingress" may read just what an ingress controller needs."""
    with ControlPlane(directory=tmp_path_factory.mktemp("plane"), place=shared_net, users=USERS) as made:
        made.allow("ingress", [*MANDATORY, *OPTIONAL])
        yield made


@pytest.fixture(scope="session")
def shared_ats(build: Build, shared_net: PodNet, shared_plane: ControlPlane) -> Generator[Ats]:
    """The server, over the cluster as it stands; ready."""
    with watching(build, shared_net, shared_plane, token=shared_plane.token("ingress")) as ats, ats:
        yield ats


@pytest.fixture
def cluster(
    shared_plane: ControlPlane,
    shared_net: PodNet,
    shared_ats: Ats,
    authority: Authority,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Generator[Cluster]:
    """Everything, with a namespace of the test's own, which goes with it; the server's logs are looked at after the test."""
    namespace = re.sub(r"[^a-z0-9]+", "-", str(request.node.name).lower().removeprefix("test_")).strip("-")[:50].strip("-")
    shared_plane.namespace(namespace)
    made = Cluster(
        plane=shared_plane,
        net=shared_net,
        ats=shared_ats,
        authority=authority,
        namespace=namespace,
        directory=tmp_path,
    )
    yield made
    made.remove()
    disturbed = getattr(request.module, "DISTURBS_THE_API_SERVER", False)
    if disturbed:
        shared_ats.allow("list or watch failed")
    if disturbed or getattr(request.module, "MAKES_BAD_OBJECTS", False):
        made.allow_conditions()  # after an outage each kind is back at its own time: an Ingress may be seen before its Secret
    shared_ats.check_logs()
