"""Small pools of names, so that objects meet, and what every room of this package draws with.

This package is the only source of generated values.
"""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from atsk8s.api.meta import ObjectMeta

T = TypeVar("T")

NAMESPACES = st.sampled_from((*"aaaaaaabbbb", "a-b"))
NAMES = st.sampled_from(("x", "y"))
SERVICE_NAMES = st.sampled_from((*"sssss", "t"))
SECRET_NAMES = st.sampled_from(("c", "d"))
# Mostly good, so that objects meet: a rejected Ingress meets none.
CLASS_NAMES = st.sampled_from((*["atsk8s"] * 7, None, "fast", "nginx"))
NAMED_CLASSES = st.sampled_from(("fast", "nginx"))
_HOT_HOSTS = ("v.w.example", "v.w.example", "u.w.example", "*.w.example")
HOSTS = st.sampled_from(
    (*_HOT_HOSTS * 5, "w.example", "V.w.Example", "", "", "*.example", "w.example", "v.w.example", "not a host")
)
PATHS = st.sampled_from(("", "/", "/p", "/p/", "/p/q", "/p//q", "/P", "/%70", "/p%2fq", "/p/q/r", "relative", "/é"))
PATH_TYPES = st.sampled_from(("Exact", "Prefix", "Prefix", "ImplementationSpecific"))
PORT_NAMES = st.sampled_from(("", "http", "admin"))
PORTS = st.sampled_from((80, 81))
CREATED_S = st.integers(0, 3)
NO_ANNOTATIONS: st.SearchStrategy[dict[str, str]] = st.just({})


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of several strategies, each so many times as likely; `one_of` takes a strategy that is given twice for one."""
    table = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(range(len(table))).flatmap(table.__getitem__)


def meta(
    names: st.SearchStrategy[str],
    namespaces: st.SearchStrategy[str] = NAMESPACES,
    annotations: st.SearchStrategy[dict[str, str]] = NO_ANNOTATIONS,
) -> st.SearchStrategy[ObjectMeta]:
    return st.builds(ObjectMeta, name=names, namespace=namespaces, created_s=CREATED_S, annotations=annotations)
