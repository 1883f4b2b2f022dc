"""Label selectors, as kubectl takes them: `env=prod,tier in (web, api),!legacy`.

Kubernetes' own syntax (apimachinery, pkg/labels/selector.go): a comma is "and"; `!=` and `notin` also match what lacks the label.
Numbers (`gt`, `lt`) are for Nodes and not read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

REQUIREMENTS_MAX: Final = 64
VALUES_MAX: Final = 256  # of one requirement

_NAME: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_PREFIX: Final = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_KEY: Final = re.compile(rf"(?:{_PREFIX}/)?{_NAME}", re.ASCII)
_VALUE: Final = re.compile(rf"(?:{_NAME})?", re.ASCII)
_SET: Final = re.compile(r"(\S+)\s+(in|notin)\s*\((.*)\)", re.ASCII | re.DOTALL)
_EQUALITY: Final = re.compile(r"([^=!\s]+)\s*(==|=|!=)\s*(\S*)", re.ASCII)
_PRESENCE: Final = re.compile(r"(!?)\s*(\S+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One term: the label's value is one of `values`; None: any value.  `is_negated`: it is not, or there is no such label."""

    key: str
    values: tuple[str, ...] | None
    is_negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found != self.is_negated

    def __str__(self) -> str:
        if self.values is None:
            return f"!{self.key}" if self.is_negated else self.key
        return f"{self.key} {'notin' if self.is_negated else 'in'} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """All of its requirements together."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


OptionalSelector: TypeAlias = LabelSelector | None


def parse_label_selector(text: str) -> LabelSelector:
    """A selector of at least one requirement.

    Raises:
        ValueError: the fault, worded to follow the text.
    """
    terms = _terms(text)
    if len(terms) > REQUIREMENTS_MAX:
        raise ValueError(f"has {len(terms)} terms; at most {REQUIREMENTS_MAX} are taken")
    return LabelSelector(requirements=tuple(_requirement(term.strip()) for term in terms))


def _terms(text: str) -> list[str]:
    """What commas separate, but for those in parentheses."""
    terms, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth not in (0, 1):
            raise ValueError("has parentheses that do not match")
        if character == "," and not depth:
            terms.append("")
        else:
            terms[-1] += character
    if depth:
        raise ValueError("has parentheses that do not match")
    return terms


def _requirement(term: str) -> Requirement:
    found = _SET.fullmatch(term)
    if found is not None:
        values = tuple(sorted({value.strip() for value in found[3].split(",")}))
        return _checked(term, Requirement(key=found[1], values=values, is_negated=found[2] == "notin"))
    found = _EQUALITY.fullmatch(term)
    if found is not None:
        return _checked(term, Requirement(key=found[1], values=(found[3],), is_negated=found[2] == "!="))
    found = _PRESENCE.fullmatch(term)
    if found is None:
        raise ValueError(f"has a term that is none: {term[:80]!a}")
    return _checked(term, Requirement(key=found[2], values=None, is_negated=found[1] == "!"))


def _checked(term: str, requirement: Requirement) -> Requirement:
    values = requirement.values or ()
    if len(values) > VALUES_MAX:
        raise ValueError(f"has a term of {len(values)} values; at most {VALUES_MAX} are taken")
    if _KEY.fullmatch(requirement.key) is None or any(_VALUE.fullmatch(value) is None for value in values):
        raise ValueError(f"has a term that is none: {term[:80]!a}")
    return requirement
