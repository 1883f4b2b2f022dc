"""Offline tools: the plugin's own code over a directory of manifests, without Traffic Server.

    python -m atsk8s check DIR | -        what would become of every object; exit status 1 if anything is wrong
    python -m atsk8s explain URL --manifests DIR | --state FILE | --admin ADDRESS:PORT
    python -m atsk8s dump --manifests DIR | --state FILE | --admin ADDRESS:PORT

"-" is standard input.  With --state the last good state is read, with --admin the running process is asked.  --json prints for
programs.  docs/tools.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from atsk8s import __version__
from atsk8s.compile.faults import BlobError
from atsk8s.compile.state_file import FILE_NAME, SIZE_MAX, SavedState, read_state
from atsk8s.errors import AtsK8sError, KubeError
from atsk8s.model.explain import dump, explain
from atsk8s.tools.check import Loaded, Verdict, check, load, load_stream, refused_claims

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
                return _check(parsed)
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
    checker = tools.add_parser("check", help="what would become of every object; exit status 1 if anything is wrong")
    checker.add_argument("manifests", type=Path, metavar="DIR", help="YAML manifests; - is standard input")
    explainer = tools.add_parser("explain", help="where a request would go, and why")
    explainer.add_argument("url", metavar="URL", help="for example http://shop.example/cart")
    dumper = tools.add_parser("dump", help="everything that is routed, without secrets")
    for tool in (explainer, dumper):
        source = tool.add_mutually_exclusive_group(required=True)
        source.add_argument("--manifests", type=Path, metavar="DIR", help="YAML manifests; - is standard input")
        source.add_argument("--state", type=Path, metavar="FILE", help="a last good state, or the --state-dir that it is in")
        source.add_argument("--admin", metavar="ADDRESS:PORT", help="a running process")
    for tool in (checker, explainer, dumper):
        tool.add_argument("--json", action="store_true", help="for programs")
        tool.add_argument(
            "--option",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the plugins that decides about objects, such as tenancy=strict; may be repeated",
        )
    return parser


def _loaded(parsed: argparse.Namespace) -> Loaded:
    if str(parsed.manifests) == "-":
        return load_stream(sys.stdin.buffer, parsed.option)
    return load(parsed.manifests, parsed.option)


def _check(parsed: argparse.Namespace) -> int:
    found = check(_loaded(parsed))
    n_wrong = sum(one.outcome.is_wrong for one in found)
    if parsed.json:
        plain = list(map(_plain, found))
        print(json.dumps({"verdicts": plain, "looked_at": len(found), "wrong": n_wrong}, indent=1))
        return WRONG if n_wrong else 0
    for one in found:
        print(f"{one.outcome:8}  {one.what}")
        for finding in one.findings:
            print(f"          {finding.reason}: {finding.message}")
    print(f"{len(found)} looked at, {n_wrong} with something wrong")
    return WRONG if n_wrong else 0


def _plain(verdict: Verdict) -> Plain:
    findings = [{"reason": one.reason, "message": one.message} for one in verdict.findings]
    return {"object": verdict.what, "outcome": verdict.outcome, "findings": findings}


def _explain(parsed: argparse.Namespace) -> int:
    url = urlsplit(parsed.url)
    if not url.netloc:
        raise ValueError(f"{parsed.url!r} is no URL with a host, such as http://shop.example/cart")
    path = url.path or "/"
    answer: Plain
    if parsed.admin:
        answer = _ask(parsed.admin, f"/explain?url={quote(parsed.url, safe='')}")
    elif parsed.state:
        answer = explain(_saved(parsed.state).table, url.netloc, path, lambda _: ())
    else:
        model = _loaded(parsed).model
        answer = {**model.explain(url.netloc, path), "refused": refused_claims(model, url.netloc)}
    _show(answer, as_json=parsed.json)
    return 0 if "rule" in answer else WRONG


def _dump(parsed: argparse.Namespace) -> int:
    answer: Plain
    if parsed.admin:
        answer = _ask(parsed.admin, "/dump")
    elif parsed.state:
        saved = _saved(parsed.state)
        header = {"written_s": saved.written_s, "table_version": saved.table_version}
        answer = {"state": header, **dump(saved.table, {})}
    else:
        answer = _loaded(parsed).model.dump()
    _show(answer, as_json=parsed.json)
    return 0


def _saved(path: Path) -> SavedState:
    """The last good state in a file, or in a --state-dir."""
    file = path / FILE_NAME if path.is_dir() else path
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # a pipe would be waited for
        content = opened.read(SIZE_MAX + 1)
    try:
        return read_state(content)
    except BlobError as error:
        raise KubeError(f"--state={file}: {error}") from None


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
