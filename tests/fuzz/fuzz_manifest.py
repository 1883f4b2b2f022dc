"""A file of a manifests directory, through the whole source and the model into the C core.

The input is versions of one file, cut at NUL bytes: each is loaded over the one before.  Text that starts with a brace is read as
a .json file, everything else as .yaml.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import atsk8s.model.certificates  # the model imports it when it needs it, which is too late to be looked into  # noqa: F401
from atsk8s.errors import RejectError
from atsk8s.settings import Settings
from atsk8s.source.documents import load, split_documents
from atsk8s.source.kinds import KINDS, AnyKind
from atsk8s.source.manifests import ManifestSource
from atsk8s.source.store import Change
from tests.fuzz import fuzz_objects
from tests.fuzz.commits import KEPT_MANIFEST, KEPT_NAME, Cluster
from tests.fuzz.made_pairs import with_pair
from tests.fuzz.target import MutateBytes, Target, check_message, no_errors_logged
from tests.fuzz.trees import mutated

_VERSIONS_MAX = 4
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_SYNTAX = (
    *(
        "---\n",
        "...\n",
        "&a ",
        "*a ",
        "<<: ",
        "? ",
        ": ",
        "- ",
        "!!str ",
        "!!binary ",
        "!x ",
        "|\n",
        ">-\n",
        "%YAML 1.1\n",
        "{",
        "}",
    ),
    *("[", "]", ",", '"', "'", "#", "~", "yes", "0755", "1_0", "0x_", ".inf", "2024-01-01", "\ufeff", "\u2028", "\x85", "\t", "  "),
)


def check(data: bytes) -> None:
    """Whatever stands in a file, what is in another one is served, and every fault is reported in one bounded line."""
    settings = Settings(manifests="/manifests", watch_ingress_without_class=True)
    with tempfile.TemporaryDirectory(prefix="atsk8s-fuzz-", dir=_MEMORY) as name, no_errors_logged():
        directory = Path(name)
        source = ManifestSource(directory, clock=lambda: 0.0, wait=lambda _: False)
        cluster = Cluster(settings, is_kept=KEPT_NAME.encode() not in data)

        def listener(kind: AnyKind, changes: Sequence[Change[Any]]) -> None:
            for change in changes:
                cluster.put(kind, change.key, source.store(kind).get(change.key))

        source.subscribe(listener)
        (directory / "0.yaml").write_text(KEPT_MANIFEST)
        for number, version in enumerate(with_pair(data).split(b"\0")[:_VERSIONS_MAX]):
            _write(directory, version, number)
            source.look()
            assert [status.reason for status in source.kinds() if status.reason] == []
            cluster.commit()
            for problem in source.problems():
                check_message(problem.message)
        cluster.finish({kind: source.store(kind) for kind in KINDS})


def _write(directory: Path, version: bytes, number: int) -> None:
    is_json = version.lstrip().startswith(b"{")
    for suffix, is_wanted in (("json", is_json), ("yaml", not is_json)):
        path = directory / f"1.{suffix}"
        if not is_wanted:
            path.unlink(missing_ok=True)
            continue
        path.write_bytes(version)
        os.utime(path, ns=(number, number))  # two writes may fall into one tick of the file system's clock


def mutate(data: bytes, rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """See `mutated_text`; and versions of the file come and go."""
    versions = data.split(b"\0")
    at = rng.randrange(len(versions))
    match rng.randrange(8):
        case 0 if len(versions) < _VERSIONS_MAX:
            versions.insert(at, versions[at])
        case 1 if len(versions) > 1:
            del versions[at]
        case _:
            versions[at] = mutated_text(versions[at], fuzz_objects.WORDS, rng, mutate_bytes)
    return b"\0".join(versions)


def mutated_text(raw: bytes, words: tuple[str, ...], rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """Documents are read, changed and written anew, in one style of YAML or another; or lines and syntax change as text."""
    text = raw.decode("utf-8", "replace")
    if rng.random() < 0.3:
        lines = text.splitlines(keepends=True) or [""]
        line, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        place = rng.randrange(len(lines[line]) + 1)
        fresh = lines[line][:place] + rng.choice(_SYNTAX) + lines[line][place:]
        lines[other] = rng.choice((fresh, lines[line], "", lines[line] + lines[other], lines[other].replace(" ", "", 2)))
        return "".join(lines).encode("utf-8", "surrogatepass")
    try:
        chunks = split_documents(text)
        at = rng.randrange(len(chunks))
        (tree,) = load(chunks[at][1])
    except (RejectError, ValueError):
        return mutate_bytes(raw, len(raw) + 64)
    changed = mutated(tree, words, rng, mutate_bytes)
    pieces = [chunk.removeprefix("---").strip("\n") for _, chunk in chunks]
    if rng.random() < 0.5:
        pieces[at] = json.dumps(changed, ensure_ascii=rng.random() < 0.5)
    else:
        try:
            pieces[at] = yaml.safe_dump(changed, default_flow_style=None, allow_unicode=rng.random() < 0.5)
        except (yaml.YAMLError, ValueError):
            pieces[at] = json.dumps(changed)
    if rng.random() < 0.1:
        pieces.append(pieces[at])
    return "\n---\n".join(pieces).encode("utf-8", "replace").replace(b"\0", b"")


TARGET = Target(check=check, words=(*fuzz_objects.WORDS, *_SYNTAX), mutate=mutate, size_max=6 * 1024)
