"""Whose Lua is run: what an administrator allows of what Ingresses ask for with `server-snippet`.

Nothing here looks at the text itself: LuaJIT compiles it in the proxy, where its faults are logged and counted (docs/snippets.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from atsk8s.errors import Reason
from atsk8s.model.annotated import Fault, IngressAnnotations
from atsk8s.model.policies import SNIPPET_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class SnippetRules:
    """The options."""

    is_on: bool = False  # --snippets
    namespaces: tuple[str, ...] = ()  # --snippet-namespaces; (): any, or none if `is_strict`
    is_strict: bool = False  # --tenancy=strict
    bytes_max: int = SNIPPET_MAX  # --max-snippet-bytes

    def applied(self, namespace: str, said: IngressAnnotations) -> tuple[IngressAnnotations, tuple[Fault, ...]]:
        """What an Ingress of `namespace` says, without a snippet that is not run; and why that one is not."""
        if said.server_snippet is None:
            return said, ()
        fault = self._fault(namespace, said.server_snippet)
        if fault is None:
            return said, ()
        return replace(said, server_snippet=None), (fault,)

    def _fault(self, namespace: str, text: str) -> Fault | None:
        if not self.is_on:
            return _not_run(Reason.FORBIDDEN, "the option --snippets is off: an administrator has to turn it on")
        if self.namespaces and namespace not in self.namespaces:
            return _not_run(Reason.FORBIDDEN, f"the option --snippet-namespaces does not name {namespace}")
        if self.is_strict and not self.namespaces:
            return _not_run(Reason.FORBIDDEN, f"with --tenancy=strict the option --snippet-namespaces must name {namespace}")
        size = len(text.encode("utf-8", "replace"))
        most = min(self.bytes_max, SNIPPET_MAX)
        if size > most:
            return _not_run(Reason.LIMIT_EXCEEDED, f"it has {size} bytes, and at most {most} are allowed (--max-snippet-bytes)")
        return None


def _not_run(reason: Reason, why: str) -> Fault:
    return Fault(reason=reason, message=f"annotation server-snippet is not run: {why}")


NO_SNIPPETS: Final = SnippetRules()
