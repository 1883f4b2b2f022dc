"""Why a request did not go elsewhere: the rules and virtual hosts that were passed over, each with the reason, for `explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from atsk8s.model.ir import HostKey, PathMatchKind, Rule, VirtualHost
from atsk8s.model.matching import matches
from atsk8s.model.names import NO_HOST, host_text

OTHERS_MAX: Final = 50  # rules that are told of; a virtual host may have 100,000


def others(
    vhosts: Mapping[HostKey, VirtualHost | None], tried: Sequence[HostKey], chosen: VirtualHost | None, rule: Rule | None, path: str
) -> list[Mapping[str, object]]:
    """What was looked at and not taken, in the order in which it was.

    Args:
        vhosts: all there are.
        tried: the hosts that may serve the request, the most specific first.
        chosen: the virtual host of the request; None: there is none.
        rule: the one that was followed; None: none was.
        path: normalised.
    """
    return list(islice(_others(vhosts, tried, chosen, rule, path), OTHERS_MAX))


def _others(
    vhosts: Mapping[HostKey, VirtualHost | None], tried: Sequence[HostKey], chosen: VirtualHost | None, rule: Rule | None, path: str
) -> Iterator[Mapping[str, object]]:
    for key in tried:
        vhost = vhosts.get(key)
        name = "every host" if key == NO_HOST else host_text(key)
        if vhost is None:
            yield {"virtual_host": name, "why_not": "no object serves it"}
        elif vhost is not chosen:
            yield {"virtual_host": name, "why_not": f"{_name(chosen)} is more specific, and a host's paths are all in one place"}
        else:
            for other in vhost.rules:
                if other is not rule:
                    yield {
                        "object": str(other.object),
                        "match": f"{other.kind.name} {other.path}",
                        "why_not": _why(other, rule, path),
                    }


def _why(other: Rule, rule: Rule | None, path: str) -> str:
    if not matches(other, path):
        wanted = "is" if other.kind is PathMatchKind.EXACT else "starts with the segments of"
        return f"it is for what {wanted} {other.path}"
    if rule is not None and rule.path == other.path:
        return "EXACT comes before PREFIX"
    return f"{rule.path if rule is not None else 'another'} is longer"


def _name(vhost: VirtualHost | None) -> str:
    if vhost is None:
        return "none"
    return "every host" if vhost.key == NO_HOST else host_text(vhost.key)
