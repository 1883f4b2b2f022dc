"""Mutation of what JSON and YAML describe: trees of maps, lists and scalars, so that most of an object stays an object."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from tests.fuzz.target import MutateBytes

_STRING_BYTES_MAX = 2048
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 80, 65535, 65536, 2**31, 2**63, 2**64, -(2**63) - 1, 0.5, 1e308, 10**400),
    *("", "/", "//", "/..", "/%2f", "/%00", "%", "*", "*.", ".", "a/b", "\0", "\n", "é", "\u212a", "\u2028", "\ud800", "127.0.0.1"),
    *("::1", "0", "80", "None", "true", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59+23:59", "0001-01-01T00:00:00Z"),
)

Place = tuple[Any, Any]  # a map or list, and the key or index in it


def mutated(tree: Any, words: tuple[str, ...], rng: random.Random, mutate_bytes: MutateBytes) -> Any:
    """A copy of `tree` with one to four changes."""
    root = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(root))
        _change(*rng.choice(places), places, words, rng, mutate_bytes)
    return root[0]


def mutated_json(raw: bytes, words: tuple[str, ...], rng: random.Random, mutate_bytes: MutateBytes) -> bytes:
    """The same for JSON text; text that is none is mutated as bytes, and so is any other now and then."""
    try:
        tree = json.loads(raw) if rng.random() < 0.9 else None
    except (ValueError, RecursionError):
        tree = None
    if tree is None:
        return mutate_bytes(raw, len(raw) + 64)
    return json.dumps(mutated(tree, words, rng, mutate_bytes), ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(root: list[Any]) -> list[Place]:
    found: list[Place] = []
    pending: list[Any] = [root]
    while pending:
        node = pending.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            if isinstance(node[key], dict | list):
                pending.append(node[key])
    return found


def _change(
    parent: Any, key: Any, places: list[Place], words: tuple[str, ...], rng: random.Random, mutate_bytes: MutateBytes
) -> None:
    value = parent[key]
    match rng.randrange(9):
        case 0:
            parent[key] = rng.choice(_SCALARS)
        case 1:
            parent[key] = rng.choice(words) if words else ""
        case 2:  # something from elsewhere, where it may or may not belong
            other, place = rng.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                parent[key] = copy.deepcopy(other[place])
        case 3 if isinstance(parent, dict):
            del parent[key]
        case 3 | 4 if isinstance(parent, list):
            parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(value))
        case 4:
            parent[rng.choice(words) if words else ""] = copy.deepcopy(value)
        case 5 if isinstance(value, list) and value:
            del value[rng.randrange(len(value))]
        case 6 if isinstance(value, int | float):
            parent[key] = rng.choice((-value, value + 1, str(value), [value]))
        case 7:
            parent[key] = rng.choice(([value], {"": value}, value if not isinstance(value, list) else value * 3))
        case _ if isinstance(value, str):
            parent[key] = _text(value, rng, mutate_bytes)
        case _:
            parent[key] = rng.choice(_SCALARS)


def _text(value: str, rng: random.Random, mutate_bytes: MutateBytes) -> str:
    if rng.random() < 0.1:
        return (value or "a") * rng.choice((2, 16, 64, 254))
    raw = value.encode("utf-8", "surrogatepass")[:_STRING_BYTES_MAX]
    return mutate_bytes(raw, len(raw) + 16).decode("utf-8", "replace")
