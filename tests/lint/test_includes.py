"""The layers of the C core: which file may include which, and who alone may know OpenSSL, liburcu, Python and Traffic Server.

Folders from the bottom up (FOLDERS), and the files within each; a file includes its own layer's headers only where a line below
says so:

    base        atsk_base, prefix, retire, siphash, id_map
    blob        atsk_format | policies | vhost
    endpoints   endpoint_layout, affinity | affinity_key, health | balance | endpoint_set | endpoints
    table       request, trie_nodes, certificates | trie | records | places | publish | match
    policy      retry_budget, client_limits, grpc, timeouts | treatment | defaults
    controller  stats, ats_records | controller | state | state_save, bridge
    hooks       client, snippets | respond, incoming, log_fields, admission ... | preference, attempts | decision | txn, tls
    process     options | host | pyhost
                kubernetes_remap, kubernetes_ssl
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PLUGIN_C = Path(__file__).resolve().parents[2] / "plugin_c"

FOLDERS = ("base", "blob", "endpoints", "table", "policy", "controller", "hooks", "process", ".")

_BASE = ("atsk_base", "atsk_format")
_TABLE = (*_BASE, "request", "vhost", "trie", "endpoints", "certificates", "publish", "match")

# stem of a file -> stems of the headers that its .c and .h together may include, besides its own.
ALLOWED: dict[str, tuple[str, ...]] = {
    "atsk_format": (),
    "atsk_base": (),
    "siphash": _BASE,
    "id_map": _BASE,
    "retire": _BASE,
    "prefix": (),
    "request": _BASE,
    "policies": _BASE,
    "vhost": (*_BASE, "policies"),
    "trie_nodes": (*_BASE, "siphash"),
    "trie": (*_BASE, "retire", "siphash", "trie_nodes"),
    # Services: what they are in memory, which their rooms share; who is left out, who is chosen; sets; picks.
    "endpoint_layout": (*_BASE, "retire"),
    "affinity": (*_BASE, "siphash"),
    "affinity_key": (*_BASE, "affinity", "siphash"),
    "health": (*_BASE, "endpoint_layout"),
    "balance": (*_BASE, "endpoint_layout", "health", "siphash"),
    "endpoint_set": (*_BASE, "affinity", "balance", "endpoint_layout", "health", "retire"),
    "endpoints": (*_BASE, "balance", "endpoint_layout", "endpoint_set", "health", "retire"),
    "certificates": (*_BASE, "retire"),
    "records": (*_BASE, "certificates", "endpoints", "id_map", "retire"),
    "places": (*_BASE, "certificates", "endpoints", "records", "retire", "trie", "vhost"),
    "publish": (*_BASE, "certificates", "endpoints", "places", "records", "request", "retire", "trie", "vhost"),
    "match": (*_BASE, "certificates", "endpoints", "publish", "request", "trie", "vhost"),
    "stats": ("atsk_base",),
    # What a rule says beyond where its requests go, as values; no host, no Python.
    "timeouts": _BASE,
    "retry_budget": ("atsk_base",),
    "client_limits": (*_BASE, "prefix", "siphash"),
    "grpc": ("atsk_base",),
    "treatment": (*_BASE, "policies", "timeouts"),
    "defaults": (*_BASE, "health", "retry_budget", "treatment"),
    # The controller's side of the core: its header is what hooks may ask, its .c is the bridge's.
    "controller": (*_BASE, "bridge", "defaults", "prefix", "publish"),
    "client": (*_BASE, "client_limits", "controller"),
    "snippets": (*_BASE, "bridge", "controller", "stats"),
    "ats": (),
    "respond": ("ats", "atsk_base", "grpc"),
    "incoming": ("ats", "atsk_base", "client", "controller", "request"),
    "cache_key": ("ats", "atsk_base", "incoming"),
    "forwarded": ("ats", "atsk_base", "controller", "incoming"),
    "log_fields": ("ats", "atsk_base", "controller", "incoming", "respond"),
    "next_hop": ("ats", "atsk_base", "endpoints"),
    "deadlines": ("ats", "atsk_base", "stats", "timeouts"),
    "slow_headers": ("ats", "atsk_base", "deadlines", "stats"),
    "body_count": ("ats", "atsk_base"),
    "admission": ("ats", *_BASE, "client", "client_limits", "controller", "grpc", "incoming", "stats"),
    "preference": ("ats", *_BASE, "admission", "affinity", "balance", "controller", "incoming", "policies", "vhost"),
    "attempts": (
        "ats",
        *_BASE,
        "controller",
        "deadlines",
        "endpoints",
        "next_hop",
        "respond",
        "retry_budget",
        "stats",
        "treatment",
    ),
    "decision": (
        *(*_TABLE, "ats", "admission", "client_limits", "controller", "deadlines", "incoming", "log_fields"),
        *("policies", "preference", "respond", "snippets", "stats", "treatment"),
    ),
    "txn": (
        *("ats", "atsk_base", "attempts", "body_count", "cache_key", "client_limits", "controller", "deadlines", "decision"),
        *("forwarded", "incoming", "log_fields", "next_hop", "preference", "publish", "respond", "slow_headers", "stats"),
    ),
    "tls": (*_TABLE, "ats", "controller", "stats"),
    # The last good state beside commits: no host, no Python.
    "state_format": (*_BASE, "defaults"),
    "state": (*_TABLE, "controller", "siphash", "state_format"),
    "state_save": (*_TABLE, "controller", "id_map", "siphash", "state", "state_format"),
    "bridge": (*_TABLE, "ats_records", "controller", "state", "stats"),
    "options": ("atsk_base", "siphash"),
    "ats_records": ("atsk_base",),
    # The host side of the controller: the process, its log, its records, its drain.
    "host": ("atsk_base", "ats", "controller", "tls", "txn"),
    "pyhost": ("atsk_base", "affinity_key", "ats", "bridge", "controller", "host", "options", "publish", "state"),
    "kubernetes_remap": ("ats", "atsk_base", "host", "pyhost", "slow_headers", "txn"),
    "kubernetes_ssl": ("ats", "atsk_base", "host", "pyhost", "tls"),
}

# Header of somebody else -> files that alone may include it.
KEEPERS: dict[str, frozenset[str]] = {
    "Python.h": frozenset({"pyhost.c"}),
    "openssl/": frozenset({"certificates.c", "tls.c"}),
    "ts/": frozenset({"ats.h"}),
    "urcu": frozenset({"publish.c", "endpoints.c", "certificates.c"}),
    "stdatomic.h": frozenset(
        {
            "publish.c",
            "endpoint_layout.h",
            "endpoint_set.c",
            "endpoints.c",
            "certificates.c",
            "stats.c",
            "controller.c",
            "bridge.c",
            "pyhost.c",
            "host.c",
            "retry_budget.c",
            "client_limits.c",
            "snippets.c",
        }
    ),
}

FILES = sorted(path for path in PLUGIN_C.rglob("*.[ch]") if path.name != "bridge_callbacks.h")


def included(path: Path) -> list[str]:
    """Return the names that a file includes itself, in order."""
    pattern = r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]'
    return re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)


def ours_of(path: Path) -> list[str]:
    """Return the stems of our own headers that a file includes itself: no two files of plugin_c/ share one."""
    return [Path(name).stem for name in included(path) if (PLUGIN_C / name).is_file()]


def test_names_are_of_one_file_each() -> None:
    assert len(FILES) == len({path.name for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_folder_includes_only_folders_below(path: Path) -> None:
    """A header of ours is named from plugin_c/ on, and stands in the file's own folder or in one below."""
    height = FOLDERS.index(str(path.parent.relative_to(PLUGIN_C)))
    wrong = []
    for name in included(path):
        if (PLUGIN_C / name).is_file():
            wrong += [name] if FOLDERS.index(str(Path(name).parent)) > height else []
        else:
            wrong += [name] if (path.parent / name).is_file() else []
    assert not wrong, f"{path.relative_to(PLUGIN_C)} includes {', '.join(wrong)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_includes_only_what_its_layer_may(path: Path) -> None:
    assert path.stem in ALLOWED, f"{path.name} has no layer: give it a line in ALLOWED, and one in the drawing above"
    ours = ours_of(path)
    wrong = [name for name in ours if name != path.stem and name not in ALLOWED[path.stem]]
    assert not wrong, f"{path.name} includes {', '.join(wrong)}, which its layer may not know"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_foreign_headers_stay_with_their_keepers(path: Path) -> None:
    for name in included(path):
        for prefix, keepers in KEEPERS.items():
            if name.startswith(prefix):
                assert path.name in keepers, f"{path.name} includes <{name}>; only {', '.join(sorted(keepers))} may"


def test_layers_have_no_cycle() -> None:
    """Rooms form an order: a .c together with its .h includes nothing that leads back to it.

    One exception: controller.c is the other half of bridge.h, which bridge.c, above it, begins.
    """
    graph: dict[str, list[str]] = {}
    for path in FILES:
        graph.setdefault(path.stem, []).extend(stem for stem in ours_of(path) if stem != path.stem)
    graph["controller"].remove("bridge")
    done: set[str] = set()

    def visit(stem: str, above: tuple[str, ...]) -> None:
        assert stem not in above, f"headers include each other: {' -> '.join((*above, stem))}"
        if stem in done or stem not in graph:
            return
        for below in graph[stem]:
            visit(below, (*above, stem))
        done.add(stem)

    for stem in graph:
        visit(stem, ())


def test_own_header_comes_first() -> None:
    """A .c that has a header of its own includes it before anything else, which shows that it stands alone."""
    wrong = []
    for path in FILES:
        own = path.with_suffix(".h")
        # Python.h must precede every other header; bridge.h is cffi's and needs types before it.
        if path.suffix == ".c" and own.is_file() and path.name != "bridge.c":
            names = [name for name in included(path) if name != "Python.h"]
            if names[:1] != [str(own.relative_to(PLUGIN_C))]:
                wrong.append(path.name)
    assert not wrong, f"own header not first: {', '.join(wrong)}"
