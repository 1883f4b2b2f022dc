"""Which Ingresses are ours and what each may claim, before any claim meets another: class, namespace, grants, limits.

Translated once an Ingress; what grants or limits take from that is kept apart, so that their change translates nothing anew.  Every
answer depends on the objects there are and not on their history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

from atsk8s.api.core import Namespace
from atsk8s.api.meta import ObjectKey
from atsk8s.api.networking import Ingress, IngressClass
from atsk8s.errors import Reason, SettingsError
from atsk8s.model.access import Access
from atsk8s.model.grants import Grant, parse_domain_access_list
from atsk8s.model.ingress import Claims, Shared, class_of, translate
from atsk8s.model.ir import Condition, ingress_ref
from atsk8s.model.quotas import NamespaceQuota, Quota, usage_text
from atsk8s.model.snippets import SnippetRules
from atsk8s.settings import CONTROLLER_NAME, Settings, Tenancy

M = TypeVar("M")

NO_CLAIMS: Final = Claims()

OnClaims: TypeAlias = Callable[[ObjectKey, Claims, Claims], None]


class Claimants:
    """See the module.

    Args:
        settings: the options.
        on_claims: called with an Ingress's key, what it was admitted to claim, and what it is now.

    Raises:
        SettingsError: an option cannot be read.
    """

    def __init__(self, settings: Settings, on_claims: OnClaims) -> None:
        self._settings = settings
        self._on_claims = on_claims
        self._own_grants = _listed(settings.domain_access_list)
        self._grants: tuple[Grant, ...] | None = None  # of ConfigMaps
        self._access = self._make_access()
        self._quota = Quota(
            hosts=settings.max_hosts_per_namespace,
            routes=settings.max_routes_per_namespace,
            certificates=settings.max_certificates_per_namespace,
        )
        self._snippets = SnippetRules(
            is_on=settings.snippets,
            namespaces=settings.snippet_namespaces,
            is_strict=settings.tenancy is Tenancy.STRICT,
            bytes_max=settings.max_snippet_bytes,
        )
        self.clear()

    def clear(self) -> None:
        """Forget every object, but not the grants; nobody is told."""
        self.shared = Shared()
        self._ingresses: dict[ObjectKey, Ingress] = {}
        self._classes: dict[str, IngressClass] = {}
        self._by_class: dict[str | None, dict[ObjectKey, None]] = {}
        self._by_namespace: dict[str, dict[ObjectKey, None]] = {}  # with a selector of namespaces only
        self._selected: dict[str, None] = {}  # likewise
        # Of the Ingresses that are ours.  Where grants take nothing the second has no entry, and where limits do not the third.
        self._translated: dict[ObjectKey, Claims] = {}
        self._permitted: dict[ObjectKey, Claims] = {}
        self._refused: dict[ObjectKey, Claims] = {}
        self._quotas: dict[str, NamespaceQuota] = {}  # by namespace; with limits only

    # --- objects --------------------------------------------------------------------------------------------------------------

    def put_ingress(self, key: ObjectKey, ingress: Ingress | None) -> None:
        """The Ingress `key` is `ingress` now; None: there is none."""
        former = self._ingresses.get(key)
        if former is not None and (ingress is None or class_of(former) != class_of(ingress)):
            _discard(self._by_class, class_of(former), key)
        if ingress is not None:
            self._ingresses[key] = ingress
            self._by_class.setdefault(class_of(ingress), {})[key] = None
        elif former is not None:
            del self._ingresses[key]
        if self._settings.namespace_selector is not None:
            if ingress is not None:
                self._by_namespace.setdefault(key.namespace, {})[key] = None
            elif former is not None:
                _discard(self._by_namespace, key.namespace, key)
        self._claim(key)

    def put_class(self, key: ObjectKey, new: IngressClass | None) -> None:
        """The IngressClass `key` is `new` now."""
        former = self._classes.get(key.name)
        if new is not None:
            self._classes[key.name] = new
        elif former is not None:
            del self._classes[key.name]
        if (former and (former.spec.controller, former.is_default)) == (new and (new.spec.controller, new.is_default)):
            return
        for class_name in (key.name, None):
            for ingress in tuple(self._by_class.get(class_name, ())):
                self._claim(ingress)

    def put_namespace(self, key: ObjectKey, new: Namespace | None) -> None:
        """The Namespace `key` is `new` now: with --namespace-selector, its labels decide about its Ingresses."""
        selector = self._settings.namespace_selector
        if selector is None:
            return
        is_selected = new is not None and selector.matches(new.metadata.labels)
        if is_selected == (key.name in self._selected):
            return
        if is_selected:
            self._selected[key.name] = None
        else:
            del self._selected[key.name]
        for ingress in tuple(self._by_namespace.get(key.name, ())):
            self._claim(ingress)

    def set_grants(self, grants: tuple[Grant, ...] | None) -> None:
        """`domain-access-list` of ConfigMaps; () grants nothing, None is no list.

        It adds to the option --domain-access-list; only without either everything is granted.
        """
        if grants == self._grants:
            return
        was_isolating = self._access.is_isolating
        self._grants = grants
        self._access = self._make_access()
        for key in tuple(self._translated):
            if self._access.is_isolating != was_isolating:
                self._claim(key)  # what annotations may say depends on that
            else:
                self._admit(key, self._translated[key])

    def _make_access(self) -> Access:
        own, others = self._own_grants, self._grants
        listed = None if own is None and others is None else (*(own or ()), *(others or ()))
        return Access(listed, is_strict=self._settings.tenancy is Tenancy.STRICT)

    # --- questions ------------------------------------------------------------------------------------------------------------

    def claims(self, key: ObjectKey) -> Claims | None:
        """What an Ingress of ours was admitted to claim; None: there is none."""
        return self._admitted(key) if key in self._translated else None

    def __iter__(self) -> Iterator[ObjectKey]:
        """The Ingresses that are ours."""
        return iter(self._translated)

    # --- the steps ------------------------------------------------------------------------------------------------------------

    def _claim(self, key: ObjectKey) -> None:
        ingress = self._ingresses.get(key)
        claims: Claims | None = None
        if ingress is not None and self._is_ours(key.namespace, class_of(ingress)):
            claims = translate(key, ingress, self.shared, is_isolated=self._access.is_isolating, snippets=self._snippets)
        self._admit(key, claims)

    def _is_ours(self, namespace: str, class_name: str | None) -> bool:
        settings = self._settings
        if settings.watch_namespaces and namespace not in settings.watch_namespaces:
            return False
        if namespace in settings.ignore_namespaces:
            return False
        if settings.namespace_selector is not None and namespace not in self._selected:
            return False
        if class_name is None:
            return settings.watch_ingress_without_class or any(
                found.is_default and self._is_our_class(name) for name, found in self._classes.items()
            )
        return self._is_our_class(class_name)

    def _is_our_class(self, name: str) -> bool:
        found = self._classes.get(name)
        return name in self._settings.ingress_classes or (found is not None and found.spec.controller == CONTROLLER_NAME)

    def _admit(self, key: ObjectKey, claims: Claims | None) -> None:
        """Grants and limits, for what an Ingress wants now; None: it is gone, or not ours."""
        if not self._quota and self._access.refuses_nothing and not self._permitted:
            # Most clusters, and each of the many objects of a start: nothing below would come to anything.
            former = self._translated.pop(key, NO_CLAIMS)
            if claims is not None:
                self._translated[key] = claims
            self._on_claims(key, former, claims or NO_CLAIMS)
            return
        wanted_before, admitted_before = self._wanted(key), self._admitted(key)
        self._permitted.pop(key, None)
        if claims is None:
            self._translated.pop(key, None)
        else:
            self._translated[key] = claims
            permitted = self._access.permitted(key, claims)
            if permitted is not claims:
                self._permitted[key] = permitted
        moved: Sequence[ObjectKey] = ()
        if self._quota:
            moved = self._quota_of(key.namespace).replace(key, wanted_before, self._wanted(key))
        self._settle(key, admitted_before)
        for other in moved:
            if other != key:
                self._settle(other, self._admitted(other))
        if self._quota and not self._quotas[key.namespace]:
            del self._quotas[key.namespace]

    def _settle(self, key: ObjectKey, before: Claims) -> None:
        """Note whether the limits let an Ingress take part, and tell what it claims now."""
        wanted = self._wanted(key)
        if not self._quota or self._quotas[key.namespace].takes_part(key, wanted):
            self._refused.pop(key, None)
        else:
            self._refused[key] = self._beyond(key, wanted)
        self._on_claims(key, before, self._admitted(key))

    def _wanted(self, key: ObjectKey) -> Claims:
        found = self._permitted.get(key)
        return found if found is not None else self._translated.get(key, NO_CLAIMS)

    def _admitted(self, key: ObjectKey) -> Claims:
        found = self._refused.get(key)
        return found if found is not None else self._wanted(key)

    def _quota_of(self, namespace: str) -> NamespaceQuota:
        found = self._quotas.get(namespace)
        if found is None:
            found = self._quotas[namespace] = NamespaceQuota(self._quota, self._wanted)
        return found

    def _beyond(self, key: ObjectKey, wanted: Claims) -> Claims:
        if self._quotas[key.namespace].fits_alone(wanted):
            why = f"older Ingresses of namespace {key.namespace} leave no room for its {usage_text(wanted)} under {self._quota}"
            remedy = "remove some of them, or ask the administrator"
        else:
            why = f"its {usage_text(wanted)} are more than a namespace may have, {self._quota}"
            remedy = "make it smaller, or ask the administrator"
        beyond = Condition(object=ingress_ref(key), reason=Reason.LIMIT_EXCEEDED, message=f"rejected: {why}: {remedy}", fatal=True)
        return Claims(conditions=(*wanted.conditions, beyond))


def _listed(text: str) -> tuple[Grant, ...] | None:
    if not text:
        return None
    try:
        return parse_domain_access_list(text.replace(";", " "))
    except ValueError as error:
        raise SettingsError(f"option --domain-access-list {error}; expected DOMAIN:NS[,NS...][;...]") from None


def _discard(sets: dict[M, dict[ObjectKey, None]], name: M, member: ObjectKey) -> None:
    members = sets[name]
    del members[member]
    if not members:
        del sets[name]
