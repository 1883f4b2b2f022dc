"""ConfigMaps over a real Traffic Server: its records change while it runs, what it would take wrongly is refused, everything goes
back.  What a record is now is asked of Traffic Server itself (tslua reads it through the plugin API), not of us."""

from __future__ import annotations

import itertools
import ssl
import subprocess
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from deploy import compile as compiler
from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import HEALTH_PATH, Ats, Options, ats_directory
from tests.harness.authority import Authority, served_serial
from tests.harness.backends import Backends, Pod
from tests.harness.manifests import Json, app, ingress, path, tls_secret
from tests.harness.patience import slowness

POD = Pod(app="blue", ip="127.61.1.1", port=28091)
OTHER = Pod(app="blue", ip="127.61.1.2", port=28091)
VIA = "proxy.config.http.insert_response_via_str"
UPDATE_TIMEOUT_S = 20.0  # Traffic Server looks for changed records every 3 s; this machine may be busy
# Answers "X-Record: VALUE" to whoever asks "X-Ask: TYPE NAME".
ASKING = """
function send()
  ts.client_response.header['X-Record'] = tostring(ts.ctx['value'])
end
function do_remap()
  local kind, name = string.match(ts.client_request.header['X-Ask'] or '', '(%a+) (.+)')
  if kind then
    ts.ctx['value'] = ts.mgmt['get_' .. kind](name)
    ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, send)
  end
  return 0
end
"""


@pytest.fixture(scope="module")
def ats(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Generator[Ats]:
    """One server; each test brings ConfigMaps of its own, and takes them away."""
    with Backends([POD], directory=tmp_path_factory.mktemp("backends")), ats_directory() as directory:
        script = directory.parent / "asking.lua"
        script.write_text(ASKING, encoding="ascii")
        script.chmod(0o644)
        options = Options(
            plugin_options=["--pod-namespace=proxy", "--configmap=elsewhere/named"],
            rule_plugins=f"@plugin=tslua.so @pparam={script}",
        )
        made = Ats(build, directory, options=options)
        made.write("site.yaml", [ingress("site", {"blue.test": [path("blue")]}), *app("blue", [POD.ip], port=POD.port)])
        with made:
            yield made
            made.allow("ConfigMap")


def configmap(name: str, data: Mapping[str, str], *, namespace: str = "proxy", mark: str = "true", created: str = "") -> Json:
    """A ConfigMap; `created` is RFC 3339."""
    metadata: Json = {"name": name, "namespace": namespace, "annotations": {"ats-configmap": mark}}
    if created:
        metadata["creationTimestamp"] = created
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def record(ats: Ats, name: str, kind: str = "int") -> str:
    """What Traffic Server says that a record is now."""
    answer = ats.get("/", host="blue.test", headers=[("X-Ask", f"{kind} {name}")])
    return answer.header("x-record") or ""


def await_record(ats: Ats, name: str, value: str, kind: str = "int") -> None:
    """Wait until Traffic Server says so."""

    def probe() -> bool:
        found = record(ats, name, kind)
        assert found == value, found
        return True

    processes.await_condition(f"{name} is {value}", probe, timeout_s=UPDATE_TIMEOUT_S)


def await_via(ats: Ats, *, is_there: bool) -> float:
    """Wait until answers carry Via, or do not; the seconds that it took."""
    began = time.monotonic()
    processes.await_condition(
        "Via comes" if is_there else "Via goes",
        lambda: (ats.get("/", host="blue.test").header("via") is not None) is is_there,
        timeout_s=UPDATE_TIMEOUT_S,
    )
    return time.monotonic() - began


def conditions(ats: Ats) -> dict[str, list[tuple[str, str]]]:
    """Every ConfigMap's conditions: name to (reason, message)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in ats.admin("/conditions").json():
        if one["kind"] == "ConfigMap":
            found.setdefault(f"{one['namespace']}/{one['name']}", []).append((one["reason"], one["message"]))
    return found


def await_conditions(ats: Ats, n: int) -> dict[str, list[tuple[str, str]]]:
    """Wait until there are `n` of them."""

    def probe() -> dict[str, list[tuple[str, str]]] | None:
        found = conditions(ats)
        assert sum(map(len, found.values())) == n, found
        return found or {"": []}

    return processes.await_condition(f"{n} conditions of ConfigMaps", probe, timeout_s=UPDATE_TIMEOUT_S)


@pytest.fixture(autouse=True)
def nothing_left(ats: Ats) -> Generator[None]:
    """No ConfigMap stays behind; everything that was logged is about them."""
    yield
    ats.write("configmaps.yaml", [])
    await_conditions(ats, 0)
    ats.allow("ConfigMap")
    ats.check_logs()


def test_traffic_sees_a_change_and_its_end(ats: Ats) -> None:
    """There and back, five times; the slowest change is within what Traffic Server's own round of 3 s allows."""
    took: list[float] = []
    assert ats.get("/", host="blue.test").header("via") is None
    for _ in range(5):
        ats.write("configmaps.yaml", [configmap("settings", {VIA: "3"})])
        took.append(await_via(ats, is_there=True))
        ats.write("configmaps.yaml", [])
        took.append(await_via(ats, is_there=False))
    print("seconds until traffic saw it:", " ".join(f"{one:.2f}" for one in sorted(took)))


def test_the_second_ancestors_example(ats: Ats) -> None:
    """Its walk-through's ConfigMap, as it stands there; its records are set, then removed one by one, then altogether."""
    names = [
        "proxy.config.output.logfile.rolling_enabled",
        "proxy.config.output.logfile.rolling_interval_sec",
        "proxy.config.restart.active_client_threshold",
    ]
    before = [record(ats, name) for name in names]
    data = dict(zip(names, ("1", "3000", "0"), strict=True))
    assert before[2] == "0"
    ats.write("configmaps.yaml", [configmap("ats-cm", data)])
    await_record(ats, names[0], "1")
    assert [record(ats, name) for name in names] == ["1", "3000", "0"]
    assert conditions(ats) == {}
    ats.write("configmaps.yaml", [configmap("ats-cm", {names[1]: "4000"})])
    await_record(ats, names[1], "4000")
    assert record(ats, names[0]) == before[0]
    ats.write("configmaps.yaml", [])
    await_record(ats, names[1], before[1])


def test_texts_and_fractions(ats: Ats) -> None:
    server, floating = "proxy.config.http.global_user_agent_header", "proxy.config.http.background_fill_completed_threshold"
    assert record(ats, server, "string") in ("nil", "")
    before = record(ats, floating, "float")
    ats.write("configmaps.yaml", [configmap("settings", {server: "atsk8s of a test", floating: "0.25"})])
    await_record(ats, server, "atsk8s of a test", "string")
    assert record(ats, floating, "float") == "0.25"
    ats.write("configmaps.yaml", [])
    await_record(ats, floating, before, "float")
    assert record(ats, server, "string") in ("nil", "")


def test_what_is_wrong_is_said_and_the_rest_applied(ats: Ats) -> None:
    wrong = {
        "proxy.config.http.slow.log.thresholds": ("UnknownSetting", "no record of this Traffic Server"),
        "proxy.process.http.total_client_connections": ("UnknownSetting", "is not known"),
        "tls-versions": ("UnknownSetting", "domain-access-list"),
        "proxy.config.http.insert_request_via_str": ("InvalidSetting", "0 to 4"),  # "abc" would become 0
        "proxy.config.log.rolling_enabled": ("InvalidSetting", "0 to 4"),  # 5
        "proxy.config.log.rolling_size_mb": ("InvalidSetting", "does not match"),  # 0
        "proxy.config.http.default_buffer_size": ("InvalidSetting", "0 to 14"),  # an index
        "proxy.config.http.server_ports": ("Unsupported", "at start only"),
        "proxy.config.cache.ram_cache.size": ("Unsupported", "at start only"),
        "proxy.config.exec_thread.affinity": ("Unsupported", "read-only"),
        "proxy.config.plugin.dynamic_reload_mode": ("Forbidden", "which code the proxy loads"),
        "proxy.config.admin.user_id": ("Forbidden", "which code the proxy loads"),
        "proxy.config.ssl.keylog_file": ("Forbidden", "may name a file"),
        "proxy.config.log.logfile_dir": ("Forbidden", "may name a file"),
        "proxy.config.url_remap.remap_required": ("Forbidden", "where no Ingress leads"),
        "proxy.config.http.cache.http": ("Forbidden", "--cache"),
        "healthcheck-path": ("InvalidSetting", "plain URL path"),
        "tls-minimum-version": ("InvalidSetting", "1.0|1.1|1.2|1.3"),
        "hsts-max-age": ("Unsupported", "has no effect yet"),
    }
    values = {
        "proxy.config.http.insert_request_via_str": "abc",
        "proxy.config.log.rolling_enabled": "5",
        "proxy.config.log.rolling_size_mb": "0",
        "proxy.config.http.default_buffer_size": "15",
        "proxy.config.http.server_ports": "80",
        "proxy.config.plugin.dynamic_reload_mode": "1",
        "proxy.config.ssl.keylog_file": "/tmp/keys",
        "proxy.config.log.logfile_dir": "/etc",
        "healthcheck-path": "healthz",
        "tls-minimum-version": "2",
    }
    before = {name: record(ats, name) for name in ("proxy.config.http.insert_request_via_str", "proxy.config.log.rolling_enabled")}
    ats.write("configmaps.yaml", [configmap("settings", {VIA: "3", **{name: values.get(name, "7") for name in wrong}})])
    (found,) = await_conditions(ats, len(wrong)).values()
    by_key = {message.partition(": ")[0]: (reason, message) for reason, message in found}
    for key, (reason, words) in wrong.items():
        assert by_key[key][0] == reason and words in by_key[key][1], by_key[key]
    await_record(ats, VIA, "3")
    assert {name: record(ats, name) for name in before} == before


def test_the_health_path_follows_a_configmap(ats: Ats) -> None:
    """There, to another, and back to the option's; only one path answers at a time, and readiness is what it says."""

    def await_path(path: str, *gone: str) -> None:
        processes.await_condition(
            f"{path} answers", lambda: ats.get(path, host="any.test").status == 200, timeout_s=UPDATE_TIMEOUT_S
        )
        assert {ats.get(other, host="any.test").status for other in gone} == {404}

    ats.write("configmaps.yaml", [configmap("settings", {"healthcheck-path": "/healthz"})])
    await_path("/healthz", HEALTH_PATH)
    longest = "/" + "x" * 254
    ats.write("configmaps.yaml", [configmap("settings", {"healthcheck-path": longest})])
    await_path(longest, "/healthz", HEALTH_PATH)
    assert conditions(ats) == {}
    ats.write("configmaps.yaml", [configmap("settings", {"healthcheck-path": longest + "x"})])
    await_path(HEALTH_PATH, longest, longest + "x")
    ((reason, message),) = await_conditions(ats, 1)["proxy/settings"]
    assert reason == "InvalidSetting" and "255" in message


def test_the_oldest_of_two_configmaps_wins(ats: Ats) -> None:
    """Of those that are usable: marked and in the controller's namespace, or named by --configmap."""
    old, older = "2024-01-02T00:00:00Z", "2024-01-01T00:00:00Z"
    key = "proxy.config.http.slow.log.threshold"
    before = record(ats, key)
    assert before == "0"
    maps = [
        configmap("younger", {key: "1000", "hsts-max-age": "x"}, created="2024-01-03T00:00:00Z"),
        configmap("named", {key: "2000"}, created=old, namespace="elsewhere", mark="no"),
        configmap("oldest-but-bad", {key: "many"}, created=older),
        configmap("unmarked", {key: "4000"}, created=older, mark="yes"),
        configmap("foreign", {key: "5000"}, created=older, namespace="elsewhere"),
        configmap("tenants", {key: "6000"}, created=older, namespace="tenant"),
    ]
    ats.write("configmaps.yaml", maps)
    found = await_conditions(ats, 3)
    await_record(ats, key, "2000")
    reasons = {name: [reason for reason, _ in those] for name, those in found.items()}
    assert reasons == {"proxy/oldest-but-bad": ["InvalidSetting"], "proxy/younger": ["InvalidSetting", "Conflict"]} or reasons == {
        "proxy/oldest-but-bad": ["InvalidSetting"],
        "proxy/younger": ["Conflict", "InvalidSetting"],
    }
    assert any("ConfigMap elsewhere/named says otherwise and comes first" in message for _, message in found["proxy/younger"])
    ats.write("configmaps.yaml", maps[:1])
    await_record(ats, key, "1000")
    ats.write("configmaps.yaml", [])
    await_record(ats, key, before)


def test_changes_in_quick_succession_under_traffic(ats: Ats) -> None:
    """A record is set again and again for longer than Traffic Server's own round, whose callbacks hold the record meanwhile: nobody
    waits for good, every request is answered, and the last value stands."""
    key = "proxy.config.http.slow.log.threshold"
    ends_at = time.monotonic() + 7.0
    for value in itertools.count(1):
        ats.write("configmaps.yaml", [configmap("settings", {key: str(value), VIA: str(value % 4)})])
        assert ats.get("/", host="blue.test").status == 200
        if time.monotonic() > ends_at:
            break
    await_record(ats, key, str(value))


def test_the_first_ancestors_access_list(ats: Ats) -> None:
    """What no entry grants is not served, at once; a fault in the list opens nothing; without the list all is as before."""

    def await_status(status: int) -> None:
        processes.await_condition(
            f"blue.test is answered {status}", lambda: ats.get("/", host="blue.test").status == status, timeout_s=UPDATE_TIMEOUT_S
        )

    ats.allow("blue.test is not served")
    for granted, status in (("blue.test:elsewhere", 404), ("*lue.test:elsewhere *:test", 200), ("nonsense", 404), (" ", 200)):
        ats.write("configmaps.yaml", [configmap("settings", {"domain-access-list": granted})])
        await_status(status)
        assert len(conditions(ats)) == (granted == "nonsense")
    ats.write("configmaps.yaml", [configmap("settings", {"domain-access-list": "other.test:test"})])
    await_status(404)
    ats.write("configmaps.yaml", [])
    await_status(200)


# Sets one record for ever, through the core's own function, with a callback that reads others: Traffic Server runs it every 3 s.
SETTING = r"""
#include "controller/ats_records.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <ts/ts.h>

static void *
set_for_ever(void *unused)
{
  for (unsigned long i = 0;; i++) {
    char tag[32];
    (void)snprintf(tag, sizeof tag, "tag%lu", i);
    if (atsk_record_write("proxy.config.diags.debug.tags", ATSK_RECORD_STRING, tag, 3) != ATSK_OK) {
      abort();
    }
  }
  return unused;
}

void
TSPluginInit(int argc, const char *argv[])
{
  TSPluginRegistrationInfo info = {(char *)"setting", (char *)"test", (char *)"none"};
  pthread_t thread;
  (void)argc, (void)argv, (void)TSPluginRegister(&info);
  (void)pthread_create(&thread, NULL, set_for_ever, NULL);
}
"""


def test_setting_meets_the_callbacks_of_the_same_record(build: Build, tmp_path_factory: pytest.TempPathFactory) -> None:
    """With Traffic Server's own lock the whole process stands still within two of its rounds, for good (docs/adr/0009)."""
    tags = "proxy.config.diags.debug.tags"
    with Backends([OTHER], directory=tmp_path_factory.mktemp("backends")), ats_directory() as directory:
        source, plugin, script = (directory.parent / name for name in ("setting.c", "setting.so", "asking.lua"))
        source.write_text(SETTING, encoding="ascii")
        script.write_text(ASKING, encoding="ascii")
        core = compiler.PLUGIN_C / "controller/ats_records.c"
        command = ["cc", *compiler.compile_flags(), "-fvisibility=default", "-shared", "-o", plugin, source, core, "-lpthread"]
        subprocess.run(command, check=True)
        for file in (plugin, script):
            file.chmod(0o755)
        options = Options(
            rule_plugins=f"@plugin=tslua.so @pparam={script}",
            global_plugins=[str(plugin)],
        )
        made = Ats(build, directory, options=options)
        made.write("site.yaml", [ingress("site", {"blue.test": [path("blue")]}), *app("blue", [OTHER.ip], port=OTHER.port)])
        with made as ats:
            seen: set[str] = set()
            ends_at = time.monotonic() + 10.0
            while time.monotonic() < ends_at:
                seen.add(record(ats, tags, "string"))
            assert len(seen) > 100 / slowness()
            ats.kill()
            ats._child = None  # its plugin without an end would not let it stop in order


def test_the_first_ancestors_certificates(ats: Ats, tmp_path: Path) -> None:
    """A host whose Ingress names no certificate gets the listed one; its own comes first; without either no handshake."""
    authority = Authority(tmp_path / "ca.pem")
    listed, own = authority.pair(["blue.test"]), authority.pair(["blue.test"])
    secret = tls_secret("listed", listed.certificate, listed.key, namespace="certs")
    settings = configmap("settings", {"tls-certificates": "other.test,*lue.test:certs/other\tblue.test:certs/listed"})

    def shown() -> int:
        with processes.connect(ats.place, "127.0.0.1", ats.https_port) as plain:
            try:
                with authority.client_context().wrap_socket(plain, server_hostname="blue.test") as tls:
                    return served_serial(tls)
            except (ssl.SSLError, ConnectionResetError):
                return 0

    def await_shown(serial: int, what: str) -> None:
        processes.await_condition(what, lambda: shown() == serial, timeout_s=UPDATE_TIMEOUT_S)

    assert shown() == 0
    ats.write("tls.yaml", [secret])
    ats.write("configmaps.yaml", [settings])
    await_shown(listed.serial, "the listed certificate is shown")
    assert conditions(ats) == {}
    ats.write(
        "tls.yaml",
        [
            secret,
            ingress("own", {"blue.test": [path("blue", "/own")]}, tls={"own": ["blue.test"]}),
            tls_secret("own", own.certificate, own.key),
        ],
    )
    await_shown(own.serial, "the Ingress's own certificate is shown")
    ats.write("tls.yaml", [secret])
    await_shown(listed.serial, "the listed certificate is shown again")
    ats.write("configmaps.yaml", [])
    await_shown(0, "no certificate is shown")
    ats.write("tls.yaml", [])


def test_a_restart_applies_them_again(ats: Ats, tmp_path: Path) -> None:
    """Nothing is written to disk: what stands is what ConfigMaps say, once they are read."""
    records = ats.tree.etc / "records.config"
    text = records.read_bytes()
    ats.write("configmaps.yaml", [configmap("settings", {VIA: "3"})])
    await_via(ats, is_there=True)
    ats.allow("ConfigMap")
    ats.check(ats.stop())
    assert records.read_bytes() == text
    ats.start()
    ats.await_ready()
    await_via(ats, is_there=True)
