"""Offline tools: the plugin's own code over a directory of manifests, without Traffic Server.

    python -m atsk8s check DIR            what would become of every object; exit status 1 if anything is wrong
    python -m atsk8s explain URL --manifests DIR | --admin ADDRESS:PORT
    python -m atsk8s dump --manifests DIR | --admin ADDRESS:PORT

With --admin the running process is asked instead (its --admin address).  --json prints for programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from atsk8s import __version__
from atsk8s.cluster_settings.state import ClusterSettings
from atsk8s.config import Settings, parse_settings
from atsk8s.errors import AtsK8sError, KubeError
from atsk8s.model.state import Model
from atsk8s.source.kinds import CONFIG_MAP, KINDS
from atsk8s.source.manifests import ManifestSource

READ_TIMEOUT_S: Final = 60.0  # for a directory to be read
ADMIN_TIMEOUT_S: Final = 10.0
ADMIN_BYTES_MAX: Final = 256 << 20
WRONG, UNUSABLE = 1, 2  # exit statuses: something is wrong with an object; the tool could not do its work

Plain = Mapping[str, object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one tool; its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        match parsed.tool:
            case "check":
                return _check(parsed.directory, parsed.option, as_json=parsed.json)
            case "explain":
                return _explain(parsed)
            case _:
                return _dump(parsed)
    except (AtsK8sError, OSError, ValueError) as error:
        print(f"atsk8s {parsed.tool}: {error}", file=sys.stderr)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m atsk8s", description="Offline tools: the plugin's own code, without Traffic Server."
    )
    parser.add_argument("--version", action="version", version=f"atsk8s {__version__}")
    tools = parser.add_subparsers(dest="tool", required=True)
    check = tools.add_parser("check", help="what would become of every object; exit status 1 if anything is wrong")
    check.add_argument("directory", type=Path, metavar="DIR", help="YAML manifests")
    explain = tools.add_parser("explain", help="where a request would go, and why")
    explain.add_argument("url", metavar="URL", help="for example http://shop.example/cart")
    dump = tools.add_parser("dump", help="everything that is routed, without secrets")
    for tool in (explain, dump):
        source = tool.add_mutually_exclusive_group(required=True)
        source.add_argument("--manifests", type=Path, metavar="DIR", help="YAML manifests")
        source.add_argument("--admin", metavar="ADDRESS:PORT", help="a running process")
    for tool in (check, explain, dump):
        tool.add_argument("--json", action="store_true", help="for programs")
        tool.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the plugins that decides about objects, such as tenancy=strict; may be repeated",
        )
    return parser


def _load(directory: Path, options: Sequence[str]) -> tuple[Model, list[str]]:
    """The model of a directory's objects, and what was wrong with its files and documents."""
    settings: Settings = parse_settings([f"--manifests={directory.absolute()}", *(f"--{option}" for option in options)], {})
    source = ManifestSource(directory, watch_namespaces=settings.watch_namespaces, ignore_namespaces=settings.ignore_namespaces)
    source.start()
    try:
        if not source.wait_synced(READ_TIMEOUT_S):
            raise KubeError(f"{directory}: not read within {READ_TIMEOUT_S:g} s")
    finally:
        source.stop()
    model = Model(settings)
    cluster_settings = ClusterSettings(settings, settings.pod_namespace or "default", None)
    problems = [f"{problem.origin}: {problem.reason}: {problem.message}" for problem in source.problems()]
    for kind in KINDS:
        for key, obj in source.store(kind).snapshot().items():
            if kind is CONFIG_MAP:
                cluster_settings.put(key, obj)
            else:
                model.put(kind, key, obj)
    cluster_settings.apply()
    problems += sorted(f"{found.object}: {found.reason}: {found.message}" for found in cluster_settings.conditions())
    model.drain(now_s=int(time.time()))
    return model, problems


def _check(directory: Path, options: Sequence[str], *, as_json: bool) -> int:
    model, problems = _load(directory, options)
    verdicts = model.verdicts()
    n_wrong = sum(bool(conditions) for conditions in verdicts.values()) + len(problems)
    if as_json:
        found = {
            str(ref): [{"reason": str(c.reason), "message": c.message, "fatal": c.fatal} for c in cs]
            for ref, cs in verdicts.items()
        }
        print(json.dumps({"files": problems, "objects": found}, indent=1))
        return WRONG if n_wrong else 0
    for problem in problems:
        print(f"rejected  {problem}")
    for ref, conditions in verdicts.items():
        if not conditions:
            print(f"accepted  {ref}")
        for condition in conditions:
            print(f"{'rejected' if condition.fatal else 'accepted, but'}  {ref}: {condition.reason}: {condition.message}")
    print(f"{len(verdicts) + len(problems)} looked at, {n_wrong} with something wrong")
    return WRONG if n_wrong else 0


def _explain(parsed: argparse.Namespace) -> int:
    url = urlsplit(parsed.url)
    if not url.netloc:
        raise ValueError(f"{parsed.url!r} is no URL with a host, such as http://shop.example/cart")
    if parsed.admin:
        answer = _ask(parsed.admin, f"/explain?url={quote(parsed.url, safe='')}")
    else:
        answer = _load(parsed.manifests, parsed.option)[0].explain(url.netloc, url.path or "/")
    _show(answer, as_json=parsed.json)
    return 0 if "rule" in answer else WRONG


def _dump(parsed: argparse.Namespace) -> int:
    answer = _ask(parsed.admin, "/dump") if parsed.admin else _load(parsed.manifests, parsed.option)[0].dump()
    _show(answer, as_json=parsed.json)
    return 0


def _ask(admin: str, target: str) -> Plain:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the admin address is never behind a proxy
    try:
        with opener.open(f"http://{admin}{target}", timeout=ADMIN_TIMEOUT_S) as answer:
            value = json.loads(answer.read(ADMIN_BYTES_MAX))
    except urllib.error.URLError as error:
        raise KubeError(f"--admin={admin}: {error.reason}; is it the --admin address of a running process?") from None
    if not isinstance(value, dict):
        raise KubeError(f"--admin={admin}: the answer is not what atsk8s answers")
    return value


def _show(value: Plain, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=1))
    else:
        print("\n".join(_lines(value)))


def _lines(value: object, indent: str = "") -> list[str]:
    """Nested values as indented `name: value` lines, for people."""
    lines: list[str] = []
    match value:
        case Mapping():
            for name, inner in value.items():
                if isinstance(inner, Mapping | list | tuple) and inner:
                    lines += [f"{indent}{name}:", *_lines(inner, indent + "  ")]
                else:
                    lines.append(f"{indent}{name}: {inner if inner not in ([], {}, ()) else 'none'}")
        case list() | tuple():
            for inner in value:
                first, *rest = _lines(inner, indent + "  ")
                lines += [f"{indent}- {first.strip()}", *rest]
        case _:
            lines.append(f"{indent}{value}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
