"""Lua of Ingresses in a real Traffic Server: that it runs, what it cannot do, and what it costs others when it tries."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator

import pytest

from deploy.compile import Build
from tests.harness import processes
from tests.harness.ats import Ats, Options, ats_directory
from tests.harness.backends import Backends, Fetched, Pod
from tests.harness.manifests import Json, app, ingress, path
from tests.harness.patience import stretched

POD = Pod(app="pod", ip="127.0.71.1")
LINE = r"\[atsk8s\] snippet of Ingress test/"

# The former controller's own examples, as its repository has them.
REDIRECT = """\
ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function()
  ts.client_response.header['Location'] = 'https://test.edge.com/app2'
end)
ts.http.skip_remapping_set(0)
ts.http.set_resp(301, 'Redirect')
"""
MESSAGES = """\
ts.debug('Debug msg example')
ts.error('Error msg example')
-- ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function()
--   ts.client_response.header['Location'] = 'https://test.edge.com/app2'
-- end)
-- ts.http.skip_remapping_set(0)
-- ts.http.set_resp(301, 'Redirect')
ts.debug('Uncomment the above lines to redirect http request to https')
"""
# Says the value of an expression, or its error, in a header of the answer.
TELL = """\
local is_fine, value = pcall(function() return {} end)
value = (is_fine and '' or 'ERROR ') .. tostring(value)
ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function() ts.client_response.header['X-Told'] = value end)
"""


def told(expression: str) -> str:
    return TELL.replace("{}", f"({expression})")


def site(name: str, snippet: str | None, *, namespace: str = "test") -> list[Json]:
    said = {"server-snippet": snippet} if snippet is not None else {}
    return [
        *app("pod", [POD.ip], namespace=namespace),
        ingress(name, {f"{name}.test": [path("pod")]}, namespace=namespace, annotations=said),
    ]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Generator[Backends]:
    with Backends((POD,), directory=tmp_path_factory.mktemp("backends")) as made:
        yield made


def lua(build: Build) -> str:
    return f"@plugin=tslua.so @pparam=--states=4 @pparam={build.snippets}"


@pytest.fixture(scope="module")
def running(build: Build, backends: Backends) -> Generator[Ats]:
    with ats_directory() as directory:
        options = Options(
            plugin_options=["--snippets", "--snippet-namespaces=test,other", "--max-snippet-bytes=4k"],
            rule_plugins=lua(build),
            records={"proxy.config.exec_thread.autoconfig": 0, "proxy.config.exec_thread.limit": 2},
        )
        made = Ats(build, directory, options=options)
        made.write("plain.yaml", site("plain", None))
        with made:
            yield made


def put(ats: Ats, name: str, snippet: str) -> None:
    ats.put(f"{name}.yaml", site(name, snippet))


def ask(ats: Ats, name: str, **more: object) -> Fetched:
    return ats.get("/", host=f"{name}.test", **more)  # type: ignore[arg-type]


def runs(ats: Ats, result: str) -> float:
    return ats.counter("atsk8s_snippets_total", result=result)


def await_told(ats: Ats, why: str) -> None:
    """A condition says so, and sooner or later the log."""
    ats.allow(r"accepted with conditions")
    assert why in ats.admin("/conditions").body.decode()
    processes.await_condition("the log has it", lambda: why in ats.log(), timeout_s=20)


def tell(ats: Ats, expression: str, *, name: str = "tell") -> str:
    put(ats, name, told(expression))
    answer = ask(ats, name)
    assert answer.status == 200
    return answer.header("x-told") or ""


def test_redirect_of_the_former_controller(ats: Ats, backends: Backends) -> None:
    put(ats, "redirect", REDIRECT)
    before = runs(ats, "ran")
    answer = ask(ats, "redirect")
    assert answer.status == 301
    assert answer.header("location") == "https://test.edge.com/app2"
    assert answer.body == b"Redirect"
    assert backends.requests() == []
    assert runs(ats, "ran") - before == 2  # the snippet, and its hook


def test_an_answer_of_luas_gives_back_what_the_request_held(ats: Ats) -> None:
    said = {"server-snippet": REDIRECT, "limit-total-concurrency": "1"}
    ats.put("held.yaml", [*app("pod", [POD.ip]), ingress("held", {"held.test": [path("pod")]}, annotations=said)])
    assert [ask(ats, "held").status for _ in range(10)] == [301] * 10


def test_messages_of_the_former_controller(ats: Ats) -> None:
    put(ats, "messages", MESSAGES)
    ats.allow(LINE + "messages: Error msg example")
    assert ask(ats, "messages").status == 200
    assert "snippet of Ingress test/messages: Error msg example" in ats.log()


def test_change_is_live_and_rules_without_pay_nothing(ats: Ats) -> None:
    for value in ("one", "two", "three"):
        assert tell(ats, f"'{value}'", name="live") == value
    before = runs(ats, "ran")
    assert ask(ats, "plain").status == 200
    assert runs(ats, "ran") == before
    ats.put("live.yaml", site("live", None))
    assert ask(ats, "live").header("x-told") is None


def test_many_versions(ats: Ats) -> None:
    """Old ones are forgotten: what a state holds does not grow with them."""
    for i in range(30):
        assert tell(ats, f"{i}", name="versions") == str(i)


def test_more_snippets_than_a_state_remembers(ats: Ats) -> None:
    """700 of them, in four states that remember 512 each: each request gets its own one's answer, again and again."""
    rows = [row for i in range(700) for row in site(f"n{i}", told(f"'n' .. {i}"))[-1:]]
    ats.put("crowd.yaml", [*site("plain", None)[:-1], *rows])
    for i in (*range(700), *range(700)):
        assert ask(ats, f"n{i}").header("x-told") == f"n{i}"
    ats.change(lambda: (ats.manifests / "crowd.yaml").unlink())


def test_request_is_seen_and_changed(ats: Ats, backends: Backends) -> None:
    put(
        ats,
        "seen",
        """
        ts.client_request.header['X-Seen'] = ts.client_request.header.Host .. ' ' .. ts.client_request.get_method()
        if ts.client_request.header['X-Token'] ~= 'open' then
          ts.http.set_resp(403, 'no token')
        end
        """,
    )
    refused = ask(ats, "seen")
    assert (refused.status, refused.body) == (403, b"no token")
    assert backends.requests() == []
    passed = ask(ats, "seen", headers=[("X-Token", "open")])
    assert passed.status == 200
    assert "seen.test GET" in passed.body.decode()  # the pod tells what it got


@pytest.mark.parametrize("name", ["syntax", "runtime", "hooked"])
def test_errors_are_logged_and_the_request_goes_on(ats: Ats, name: str) -> None:
    snippet, line, result = {
        "syntax": ("local x = 1\nif if", r"syntax: test/syntax:2: .*near 'if'", "syntax"),
        "runtime": ("\n\nlocal x = nil .. 'a'", r"runtime: test/runtime:3: attempt to concatenate a nil value", "error"),
        "hooked": (
            "ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function()\nerror('late') end)",
            r"hooked: test/hooked:2: late",
            "error",
        ),
    }[name]
    put(ats, name, snippet)
    ats.allow(LINE + line)
    before = runs(ats, result)
    assert ask(ats, name).status == 200
    assert runs(ats, result) - before == 1


GONE = [
    "os",
    "io",
    "ffi",
    "jit",
    "package",
    "require",
    "debug",
    "load",
    "loadstring",
    "loadfile",
    "dofile",
    "getfenv",
    "setfenv",
    "coroutine",
    "collectgarbage",
    "newproxy",
    "module",
    "_G",
    "print",
    "xpcall",
    "gcinfo",
    "string.dump",
    "math.randomseed",
    "ts.fetch",
    "ts.schedule",
    "ts.sleep",
    "ts.add_package_path",
    "ts.intercept",
    "ts.http.set_cache_url",
    "ts.http.config_int_set",
    "ts.mgmt",
    "ts.host_lookup",
    "ts.client_request.set_url_host",
    "('').dump",
    "ts.http.cntl_set",
    "ts.remap",
    "ts.log",
    "ts.stat_create",
    "ts.fatal",
]


def test_nothing_of_the_process_is_there(ats: Ats) -> None:
    found = " .. ".join(f"(({name}) == nil and '' or [[{name} ]])" for name in GONE)
    assert tell(ats, found) == ""


@pytest.mark.parametrize(
    "attempt",
    [
        "(function() string.rep = nil end)()",
        "rawset(string, 'rep', nil)",
        "table.insert(ts, 1)",
        "setmetatable(string, {})",
        "rawset(ts.ctx, 'a', 1)",
        "(function() ts.http.set_resp = nil end)()",
        "(function() ts.client_request.header['Transfer-Encoding'] = 'chunked' end)()",
        "(function() ts.client_request.header['X'] = 'a\\r\\nb: c' end)()",
        "(function() ts.client_request.header['a:b'] = 'c' end)()",
        "ts.http.set_resp(200, 'a\\0b')",
        "ts.http.set_resp(99999)",
        "ts.client_response.set_status(299)",
        "ts.hook(TS_LUA_RESPONSE_TRANSFORM or 99, function() end)",
        "ts.escape_uri(('x'):rep(1e6) .. nil)",
        "ts.sha256(('x'):rep(1e5))",
        "ts.http.set_resp(404, ('x'):rep(1e5))",
        "string.find(111111111111111, ('1*'):rep(100) .. 'b')",
        "('a'):rep(2500):gmatch('^' .. ('a*'):rep(3))()",
        "('a'):rep(4000):match('[' .. ('b'):rep(1000) .. 'a]*c')",
        "('a'):rep(3e6):find(('a'):rep(1000) .. 'b')",
        "('a'):rep(3e6):find(('a'):rep(1e6) .. 'b', 1, true)",
        "string.find(('a'):rep(3000), ('a*'):rep(30) .. 'b')",
        "getmetatable('').__index",
        "getmetatable(ts).__index",
        "(function() local function deep(n) return (('x'):gsub('x', function() return deep(n + 1) end)) end return deep(0) end)()",
    ],
)
def test_attempts_fail(ats: Ats, attempt: str) -> None:
    assert tell(ats, attempt).startswith("ERROR ")


def test_globals_are_one_requests_own(ats: Ats) -> None:
    snippet = "count = (count or 0) + 1; string = {}; " + told("count")
    put(ats, "own", snippet)
    for _ in range(3):
        assert ask(ats, "own").header("x-told") == "1"
    assert tell(ats, "('a'):rep(3) .. string.upper('b')") == "aaaB"


@pytest.mark.parametrize(
    ("name", "snippet", "result", "line"),
    [
        ("loop", "while true do end", "stopped", "stopped: too many"),
        ("caught", "while true do pcall(function() while true do end end) end", "stopped", "stopped: too many"),
        ("recursive", "local function f() return f() end f()", "stopped", "stopped: too many"),
        ("doubling", "local s = 'x' while true do s = s .. s end", "memory", "not enough memory"),
        ("tables", "local t = {} for i = 1, 1e9 do t[i] = {} end", "(memory|stopped)", "(not enough memory|stopped: too many)"),
        ("repeated", "while true do local s = ('x'):rep(8e6) end", "(memory|stopped)", "(not enough memory|stopped: too many)"),
        ("patterns", "while true do pcall(string.find, ('a'):rep(170), 'a*a*a*b') end", "stopped", "stopped: too many"),
        ("late", "ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function() while true do end end)", "stopped", "stopped: too many"),
    ],
)  # fmt: skip
def test_runaway_is_stopped_and_suspended(ats: Ats, name: str, snippet: str, result: str, line: str) -> None:
    put(ats, name, snippet)
    ats.allow(LINE + f"{name}: ")
    before = {one: runs(ats, one) for one in ("stopped", "memory", "suspended")}
    longest_s = 0.0
    for _ in range(16):
        begun_s = time.monotonic()
        assert ask(ats, name).status == 200
        longest_s = max(longest_s, time.monotonic() - begun_s)
    n_stopped = sum(runs(ats, one) - before[one] for one in result.strip("()").split("|"))
    assert 1 <= n_stopped <= 4 * 3  # each of four Lua states strikes it out after three
    assert runs(ats, "suspended") > before["suspended"]
    assert longest_s < stretched(2.0)  # 20 ms of CPU
    is_told = f"snippet of Ingress test/{name}: stopped 3 times within 60 s: not run for 60 s" in ats.log()
    assert is_told or ats.counter("atsk8s_snippet_lines_dropped_total") > 0  # 20 lines a second


def test_a_hook_is_called_once_however_often_it_is_set(ats: Ats) -> None:
    hook = "ts.hook(TS_LUA_HOOK_SEND_RESPONSE_HDR, function() ts.client_response.header['X-Told'] = tostring(i) end)"
    put(ats, "often", f"for n = 1, 1000 do i = n {hook} end")
    before = runs(ats, "ran")
    assert ask(ats, "often").header("x-told") == "1000"
    assert runs(ats, "ran") - before == 2


def test_changes_of_one_request_are_counted(ats: Ats) -> None:
    """What they take is Traffic Server's memory, and in no bound of Lua's."""
    put(ats, "changes", "for i = 1, 1000 do ts.client_request.header['X-' .. i] = 'a' end")
    ats.allow(LINE + "changes: test/changes:1: more than 200 changes of one request")
    before = runs(ats, "error")
    assert ask(ats, "changes").status == 200
    assert runs(ats, "error") - before == 1


def test_refused_by_the_options(ats: Ats) -> None:
    ats.write("strange.yaml", site("strange", told("1"), namespace="strange"))
    put(ats, "long", told("1") + "--" + "x" * 4096)
    for name in ("strange", "long"):
        answer = ask(ats, name)
        assert answer.status == 200
        assert answer.header("x-told") is None
    await_told(ats, "annotation server-snippet is not run: the option --snippet-namespaces does not name strange")
    await_told(ats, "at most 4096 are allowed (--max-snippet-bytes)")


def test_every_function_can_be_called_at_any_time(ats: Ats) -> None:
    """In the remap hook there is no answer yet, and no request to a pod: a call says nil, or fails; the process goes on."""
    names = {
        "client_request": "get_headers get_url get_pristine_url get_url_host get_url_port get_url_scheme get_uri"
        " get_uri_args"
        " get_uri_params get_method get_body_size get_version get_header_size get_ssl_reused"
        " get_ssl_cipher get_ssl_protocol get_ssl_curve",
        "server_request": "get_headers get_header_size get_body_size get_uri get_uri_args get_version",
        "server_response": "get_headers get_status get_version",
        "client_response": "get_headers get_status get_version",
        "http": "get_cache_lookup_status is_websocket is_internal_request id transaction_count get_client_protocol_stack",
    }
    calls = "\n".join(f"pcall(ts.{group}.{name})" for group, listed in names.items() for name in listed.split())
    headers = "\n".join(f"pcall(function() return ts.{group}.header['X'] end)" for group in names if group != "http")
    every = f"local function every()\n{calls}\n{headers}\nend\nevery()\n"
    hooks = "\n".join(
        f"ts.hook(TS_LUA_HOOK_{hook}, every)"
        for hook in ("SEND_REQUEST_HDR", "READ_RESPONSE_HDR", "SEND_RESPONSE_HDR", "CACHE_LOOKUP_COMPLETE")
    )
    put(ats, "every", every + hooks)
    ats.allow(r"\[ts_lua\]")
    assert ask(ats, "every").status == 200


def test_off_by_default_and_misconfigured(build: Build, backends: Backends) -> None:
    """Without --snippets the annotation does nothing and says so; with it, a rule without tslua.so is told."""
    with ats_directory() as directory, Ats(build, directory, options=Options(rule_plugins=lua(build))) as ats:
        ats.put("site.yaml", site("site", told("1")))
        assert ask(ats, "site").header("x-told") is None
        await_told(ats, "annotation server-snippet is not run: the option --snippets is off")
    with ats_directory() as directory, Ats(build, directory, options=Options(plugin_options=["--snippets"])) as ats:
        ats.put("site.yaml", site("site", told("1")))
        for _ in range(20):
            assert ask(ats, "site").status == 200
        ats.allow("a snippet was not run: with --snippets the rule of remap.config needs")
        assert runs(ats, "not_run") > 0


def test_two_rules_share_what_they_load(build: Build, backends: Backends) -> None:
    """http and https have a rule each, as a rule: tslua.so loads the script for both, into the same states."""
    with ats_directory() as directory:
        made = Ats(build, directory, options=Options(plugin_options=["--snippets"], rule_plugins=lua(build)))
        made.options = dataclasses.replace(made.options, remap=[made.rule(source="http://one.test/"), made.rule()])
        for name in ("one", "two"):
            made.write(f"{name}.yaml", site(name, told(f"'{name} ' .. ('x'):rep(3) .. tostring(('x').dump)")))
        with made:
            for name in ("one", "two", "one", "two"):
                assert ask(made, name).header("x-told") == f"{name} xxxnil"
