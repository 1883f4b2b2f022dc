"""ConfigMaps come, change and go: what is set, what is given back, what is held against whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from atsk8s.api.core import ConfigMap
from atsk8s.api.meta import ObjectKey, ObjectMeta
from atsk8s.cluster_settings.records import Record, RecordType
from atsk8s.cluster_settings.state import FAULTS_MAX, SOURCE_EXPLICIT, ClusterSettings
from atsk8s.errors import Reason
from atsk8s.model.grants import Grant
from atsk8s.model.ir import ObjectRef
from atsk8s.settings import Settings

A, B, TEXT = (
    "proxy.config.log.rolling_interval_sec",
    "proxy.config.log.rolling_enabled",
    "proxy.config.http.global_user_agent_header",
)


class FakeTable:
    """A process with three records."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] = {A: "86400", B: "1", TEXT: None}
        self.sources = dict.fromkeys(self.values, 1)
        self.writes: list[tuple[str, str | None, int]] = []
        self.why = ""
        self.refuses: set[str] = set()

    def unavailable(self) -> str:
        return self.why

    def read(self, name: str) -> Record | None:
        if name not in self.values:
            return None
        kind = RecordType.STRING if name == TEXT else RecordType.INT
        expression = {A: "^[0-9]+$", B: "[0-4]"}.get(name, "")
        return Record(
            type=kind, is_dynamic=True, is_writable=True, expression=expression, value=self.values[name], source=self.sources[name]
        )

    def write(self, name: str, record: Record, value: str | None, source: int) -> bool:
        if name in self.refuses:
            return False
        self.writes.append((name, value, source))
        self.values[name], self.sources[name] = value, source
        return True


class World:
    def __init__(self, settings: Settings | None = None, table: FakeTable | None = None) -> None:
        self.table = table or FakeTable()
        self.health_paths: list[str] = []
        self.state = ClusterSettings(replace(settings or Settings(), pod_namespace="proxy"), self.table, self.health_paths.append)

    def put(
        self, name: str, data: Mapping[str, str], *, namespace: str = "proxy", mark: str | None = "true", created_s: int = 0
    ) -> tuple[str, ...]:
        annotations = {"ats-configmap": mark} if mark is not None else {}
        meta = ObjectMeta(name=name, namespace=namespace, annotations=annotations, created_s=created_s)
        self.state.put(ObjectKey(namespace, name), ConfigMap(metadata=meta, data=dict(data)))
        return tuple(str(ref) for ref in self.state.apply())

    def delete(self, name: str, namespace: str = "proxy") -> None:
        self.state.put(ObjectKey(namespace, name), None)
        self.state.apply()

    def reasons(self, name: str, namespace: str = "proxy") -> list[str]:
        ref = ObjectRef(kind="ConfigMap", namespace=namespace, name=name)
        return [f"{c.reason} {c.message.partition(':')[0]}" for c in self.state.verdict(ref)]


def test_set_once_and_given_back_as_it_was() -> None:
    world = World()
    assert world.put("one", {A: "10", TEXT: "x"}) == ()
    assert sorted(world.table.writes) == [(TEXT, "x", SOURCE_EXPLICIT), (A, "10", SOURCE_EXPLICIT)]
    world.put("one", {A: "10", TEXT: "x"})
    world.put("one", {A: " 10", TEXT: "x"})
    assert len(world.table.writes) == 2
    world.put("one", {A: "20"})
    assert (world.table.values[A], world.table.values[TEXT], world.table.sources[TEXT]) == ("20", None, 1)
    assert dict(world.state.records) == {A: "20"}
    world.delete("one")
    assert (world.table.values[A], world.table.sources[A]) == ("86400", 1)
    assert dict(world.state.records) == {}
    assert list(world.state.conditions()) == []


def test_a_value_that_becomes_bad_counts_as_removed() -> None:
    world = World()
    world.put("one", {A: "10"})
    assert world.put("one", {A: "ten"}) == ("ConfigMap proxy/one",)
    assert world.table.values[A] == "86400"
    assert world.reasons("one") == [f"{Reason.INVALID_SETTING} {A}"]
    assert world.put("one", {A: "11"}) == ("ConfigMap proxy/one",)
    assert world.table.values[A] == "11"
    assert world.reasons("one") == []


def test_the_rest_of_a_bad_configmap_is_applied() -> None:
    world = World()
    world.put("one", {A: "10", B: "5", "proxy.config.nothing": "1", "what": "1"})
    assert world.table.writes == [(A, "10", SOURCE_EXPLICIT)]
    assert sorted(world.reasons("one")) == sorted(
        [f"{Reason.INVALID_SETTING} {B}", f"{Reason.UNKNOWN_SETTING} proxy.config.nothing", f"{Reason.UNKNOWN_SETTING} what"]
    )


def test_the_oldest_usable_one_wins_whatever_the_order() -> None:
    for order in (("old", "young"), ("young", "old")):
        world = World()
        for name in order:
            world.put(name, {A: {"old": "10", "young": "20"}[name]}, created_s={"old": 1, "young": 2}[name])
        assert world.table.values[A] == "10"
        assert (world.reasons("old"), world.reasons("young")) == ([], [f"{Reason.CONFLICT} {A}"])
        world.delete("old")
        assert world.table.values[A] == "20"
        assert world.reasons("young") == []
        world.delete("young")
        assert world.table.values[A] == "86400"


def test_two_that_say_the_same_are_no_conflict() -> None:
    world = World()
    world.put("one", {A: "1K"}, created_s=1)
    world.put("two", {A: "1024"}, created_s=2)
    assert list(world.state.conditions()) == []


def test_whose_configmaps_count() -> None:
    world = World(Settings(configmap=("elsewhere", "named")))
    world.put("unmarked", {A: "1"}, mark=None)
    world.put("no", {A: "2"}, mark="yes")
    world.put("foreign", {A: "3"}, namespace="elsewhere")
    assert world.table.writes == []
    world.put("named", {A: "4"}, namespace="elsewhere", mark=None)
    assert world.table.values[A] == "4"
    world.put("one", {B: "2"})
    world.put("one", {B: "2"}, mark="false")  # the mark is taken away
    assert world.table.values[B] == "1"


def test_forgetting_all_and_reading_the_same_again_changes_nothing() -> None:
    world = World()
    world.put("one", {A: "10"})
    world.state.reset()
    world.put("one", {A: "10"})
    assert len(world.table.writes) == 1
    world.state.reset()
    world.state.apply()
    assert world.table.values[A] == "86400"


def test_a_process_that_cannot_set_says_so_of_each_record() -> None:
    table = FakeTable()
    table.why = "this Traffic Server does not export it"
    world = World(table=table)
    world.put("one", {A: "10", "domain-access-list": "a.example:ns"})
    assert [c.message for c in world.state.conditions() if c.message.startswith(A)] == [f"{A}: {table.why}"]
    assert world.state.grants == (Grant(domain="a.example", namespaces=("ns",)),)


def test_a_list_of_grants_is_used_as_far_as_it_can_be() -> None:
    """What is not understood grants nothing; a list of such entries alone is no empty list, which would grant everything."""
    key = "domain-access-list"
    world = World()
    assert world.state.grants is None
    world.put("one", {key: "a.example:ns b.example nonsense c.example:n2"})
    assert [grant.domain for grant in world.state.grants or ()] == ["a.example", "c.example"]
    assert world.reasons("one") == [f"{Reason.INVALID_SETTING} {key}"] * 2
    world.put("one", {key: "nonsense " * 100})
    assert world.state.grants == ()
    assert len(world.reasons("one")) == 1  # the same fault once
    world.put("one", {key: " ".join(f"n{number}" for number in range(100))})
    assert len(world.reasons("one")) == FAULTS_MAX
    world.put("one", {key: " "})
    assert world.state.grants is None
    world.delete("one")
    assert world.state.grants is None


def test_a_record_that_is_not_taken_is_tried_again() -> None:
    world = World()
    world.table.refuses = {A}
    world.put("one", {A: "10"})
    assert world.reasons("one") == [f"{Reason.UNSUPPORTED} {A}"]
    world.table.refuses = set()
    world.put("one", {A: "10"})
    assert world.table.values[A] == "10"
    assert world.reasons("one") == []


def test_without_a_process_names_are_checked_alone() -> None:
    """The offline tools: no records to ask."""
    state = ClusterSettings(Settings(pod_namespace="proxy"), None)
    meta = ObjectMeta(name="one", namespace="proxy", annotations={"ats-configmap": "true"})
    state.put(ObjectKey("proxy", "one"), ConfigMap(metadata=meta, data={A: "ten", "proxy.config.admin.user_id": "root"}))
    state.apply()
    assert [condition.reason for condition in state.conditions()] == [Reason.FORBIDDEN]
    state.reset()
    assert state.apply() == (ObjectRef(kind="ConfigMap", namespace="proxy", name="one"),)


def test_the_health_path_is_a_configmap_s_and_then_the_option_s_again() -> None:
    world = World(Settings(health_path="/alive"))
    world.put("one", {"healthcheck-path": "/healthz"})
    world.put("one", {"healthcheck-path": " /healthz", A: "10"})
    assert list(world.state.conditions()) == []
    world.put("one", {"healthcheck-path": "/" + "x" * 255})
    assert world.reasons("one") == [f"{Reason.INVALID_SETTING} healthcheck-path"]
    world.put("one", {"healthcheck-path": "/" + "x" * 254})
    world.delete("one")
    assert world.health_paths == ["/healthz", "/alive", "/" + "x" * 254, "/alive"]


def test_the_option_s_health_path_is_set_although_there_is_no_configmap() -> None:
    """A last good state may have had another."""
    world = World(Settings(health_path="/alive"))
    for _ in range(2):
        world.state.reset()
        world.state.apply()
    assert world.health_paths == ["/alive"]


def test_a_minus_one_of_the_server_s_stays_legal_after_another_value() -> None:
    world = World()
    world.table.values[A] = "-1"
    world.table.read = lambda name: Record(  # type: ignore[method-assign]
        type=RecordType.INT, is_dynamic=True, is_writable=True, expression="", value=world.table.values[A], source=1
    )
    world.put("one", {A: "5"})
    world.put("one", {A: "-1"})
    assert world.table.values[A] == "-1"
    assert list(world.state.conditions()) == []
