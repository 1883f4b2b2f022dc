"""The offline tools and a running server say the same: of its manifests, of its admin endpoint, of the state that it leaves."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from atsk8s.__main__ import main
from deploy import server
from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.manifests import app, ingress, path

HOSTS = {"tool.test": [path("one"), path("two", "/two")], "*.wild.test": [path("two")]}
SITE = [ingress("site", HOSTS), *app("one", ["10.244.80.1", "10.244.80.2"]), *app("two", ["fd00:10:244:1::9"])]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a tool prints with --json."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_manifests_admin_and_state_agree(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    with ats_directory() as directory:
        state = directory.parent / "state"
        state.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = server.ats_user()
            os.chown(state, user.pw_uid, user.pw_gid)
        ats = Ats(build, directory, options=Options(plugin_options=[f"--state-dir={state}"]))
        ats.write("site.yaml", SITE)
        with ats:
            processes.await_condition(
                "the state is written", lambda: ats.counter("atsk8s_state_saves_total", result="saved") > 0, timeout_s=30
            )
            sources = {
                "manifests": ("--manifests", str(ats.manifests)),
                "admin": ("--admin", f"127.0.0.1:{ats.admin_port}"),
                "state": ("--state", str(state)),
            }
            for url, endpoints in (
                ("http://tool.test/", ["10.244.80.1:8080", "10.244.80.2:8080"]),
                ("http://tool.test/two/x", ["[fd00:10:244:1::9]:8080"]),
                ("http://a.wild.test/", ["[fd00:10:244:1::9]:8080"]),
            ):
                answers = {name: said(capsys, "explain", url, *source) for name, source in sources.items()}
                assert len({answer["matched"] for answer in answers.values()}) == 1
                for name, answer in answers.items():
                    assert answer["rule"]["object"] == "test/site", name
                    (found,) = answer["services"].values()
                    assert found == endpoints, name
                    assert answer["others"], name
            tables = {name: said(capsys, "dump", *source) for name, source in sources.items()}
            hosts = {name: [one["host"] for one in table["virtual_hosts"]] for name, table in tables.items()}
            assert hosts["manifests"] == hosts["admin"] == hosts["state"]
            assert tables["state"]["state"]["table_version"] >= 1
