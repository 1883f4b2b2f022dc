"""What the controller does with ConfigMaps: handed on, applied in the same round, said of, and given back."""

from __future__ import annotations

from atsk8s.api.core import ConfigMap
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.settings import Settings
from atsk8s.source.kinds import CONFIG_MAP, INGRESS
from tests.unit.test_controller import World, ingress

SETTINGS = Settings(watch_ingress_without_class=True, pod_namespace="proxy")


def configmap(version: str, data: dict[str, str]) -> ConfigMap:
    meta = ObjectMeta(name="c", namespace="proxy", resource_version=version, annotations={"ats-configmap": "true"})
    return ConfigMap(metadata=meta, data=data)


def test_a_configmap_reaches_its_conditions_and_leaves_with_them() -> None:
    world = World(SETTINGS)
    seen: list[list[str]] = []

    def note() -> None:
        seen.append(sorted(c.message.partition(":")[0] for c in world.controller.conditions() if c.object.kind == "ConfigMap"))

    world.put(CONFIG_MAP, configmap("1", {"nonsense": "1", "hsts-max-age": "5"}))
    world.run(
        note,
        lambda: world.put(CONFIG_MAP, configmap("2", {"nonsense": "1"})),
        note,
        lambda: world.source.stores[CONFIG_MAP].delete(ObjectKey("proxy", "c")),
        note,
    )
    assert seen == [["hsts-max-age", "nonsense"], ["nonsense"], []]
    assert len(world.table.commits) == 1  # none of it is a change of routes


def test_the_list_of_certificates_is_in_the_first_table() -> None:
    world = World(SETTINGS)
    world.put(CONFIG_MAP, configmap("1", {"tls-certificates": "a.example:ns/s"}))
    world.put(INGRESS, ingress())
    world.run(lambda: None)
    (policy,) = (tls for tls in world.table.commits[0].tls.values() if tls is not None)
    assert policy.certificates == (ObjectKey("ns", "s"),)


def test_reading_everything_anew_changes_nothing() -> None:
    world = World(SETTINGS)
    world.put(CONFIG_MAP, configmap("1", {"nonsense": "1"}))

    def fail() -> None:
        world.table.failures = 1
        world.put(CONFIG_MAP, configmap("2", {"nonsense": "2"}))

    world.run(fail, lambda: None, lambda: None)
    assert [c.object.kind for c in world.controller.conditions() if c.object.kind == "ConfigMap"] == ["ConfigMap"]
