"""Fields of a manifest that have no effect here: misspelt ones, and those of features that there are not.

The API server drops or refuses a misspelt field; a directory of manifests has nobody to do so.  What a kind has is asked of the
type that it is decoded into; Services have many fields that are other people's business, and are looked at by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from atsk8s.source.documents import Plain
from atsk8s.source.kinds import INGRESS, INGRESS_CLASS, AnyKind

UNUSED_MAX: Final = 100  # of one object
_WHOLE: Final = {kind.name: kind for kind in (INGRESS, INGRESS_CLASS)}
# Kind, path, the value that matters (None: any), and what to do instead.
_WITHOUT_EFFECT: Final = (
    ("IngressClass", ("spec", "parameters"), None, "no parameters are defined: use options, or annotations of the Ingresses"),
    ("Service", ("spec", "sessionAffinity"), "ClientIP", "use the annotation ats.ingress.kubernetes.io/affinity: cookie"),
    ("Service", ("spec", "externalTrafficPolicy"), "Local", "endpoints are chosen by the proxy, on whatever node they are"),
)


def unused_fields(document: Plain) -> Iterator[tuple[str, str]]:
    """(the field's path, what to do) for each field of one object that has no effect."""
    if not isinstance(document, dict):
        return
    name = document.get("kind")
    kind = _WHOLE.get(name) if isinstance(name, str) else None
    told = set()
    for of, path, value, remedy in _WITHOUT_EFFECT:
        found = _at(document, path) if of == name else None
        if found is not None and value in (None, found):
            told.add(".".join(path))
            yield ".".join(path), remedy
    if kind is not None:
        n = 0
        for field in _unknown(document.get("spec"), _spec_type(kind), "spec"):
            n += field not in told
            if n > UNUSED_MAX:
                return
            if field not in told:
                yield field, f"{kind.name} has no such field: correct its name, or remove it"


def _at(document: Plain, path: Sequence[str]) -> Plain:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _spec_type(kind: AnyKind) -> msgspec.inspect.Type:
    info = msgspec.inspect.type_info(kind.item)
    assert isinstance(info, msgspec.inspect.StructType)
    return next(field.type for field in info.fields if field.encode_name == "spec")


def _unknown(value: Plain, expected: msgspec.inspect.Type, where: str) -> Iterator[str]:
    """Paths of the fields in `value` that a type does not have."""
    types = expected.types if isinstance(expected, msgspec.inspect.UnionType) else (expected,)
    struct = next((one for one in types if isinstance(one, msgspec.inspect.StructType)), None)
    row = next((one for one in types if isinstance(one, msgspec.inspect.VarTupleType)), None)
    if isinstance(value, dict) and struct is not None:
        known: Mapping[str, msgspec.inspect.Type] = {field.encode_name: field.type for field in struct.fields}
        for name, inner in value.items():
            if name not in known:
                yield f"{where}.{name[:80]}"
            else:
                yield from _unknown(inner, known[name], f"{where}.{name}")
    elif isinstance(value, list) and row is not None:
        for n, inner in enumerate(value):
            yield from _unknown(inner, row.item_type, f"{where}[{n}]")
