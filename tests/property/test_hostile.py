"""Whatever text stands in an object's fields: it is used or it has a condition, and nothing fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atsk8s.compile.decode import decode
from atsk8s.compile.diff import Published
from atsk8s.compile.encode import encode
from atsk8s.config import Settings
from atsk8s.model.normalise import RequestFault, normalise_path
from atsk8s.model.state import Model
from tests.property import strategies
from tests.property.creader import ATSK_OK, CReader
from tests.property.strategies import KindOf, Put


@given(objects=st.lists(strategies.hostile_objects, min_size=1, max_size=6), settings=strategies.settings)
def test_no_text_breaks_the_model(c_reader: CReader, objects: list[Put], settings: Settings) -> None:
    model = Model(settings)
    for put in objects:
        model.put(KindOf(put.kind), put.obj.key, put.obj)
    plan = Published().plan(model.drain(now_s=0))

    assert plan is not None
    for condition in model.conditions():
        assert condition.message.isprintable(), "a line of a log, and no more"
        assert len(condition.message) < 1500
    for key, vhost in model.state().vhosts.items():
        assert vhost is not None
        blob = encode(vhost)
        assert decode(blob, key) == vhost
        assert c_reader.validate(blob.data) == ATSK_OK
        assert key.host == key.host.lower()
        for rule in vhost.rules:
            normal = normalise_path(rule.path.encode())
            assert not isinstance(normal, RequestFault), "a rule that no request can match"
            assert normal == rule.path.encode()
    model.dump()
