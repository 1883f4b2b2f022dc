"""Whatever text stands in an object's fields, and whatever bytes come from outside: nothing fails.

The second part is what tests/fuzz does for minutes, with its inputs, its mutations and its laws, for a moment in every run.
"""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from atsk8s.compile.diff import Published
from atsk8s.compile.encode import encode
from atsk8s.model.state import Model
from atsk8s.settings import Settings
from tests.fuzz import fuzzing, python_targets
from tests.fuzz.commits import check_state
from tests.property.creader import ATSK_OK, CReader
from tests.property.strategies import hostile, options
from tests.property.strategies.steps import KindOf, Put

_RARE_BYTES = b"\0\n\r\t \"'/%*{}[]:-&!\x7f\x80\xc3\xff09aZ"


@given(objects=st.lists(hostile.hostile_objects, min_size=1, max_size=6), settings=options.settings)
def test_no_text_breaks_the_model(c_reader: CReader, objects: list[Put], settings: Settings) -> None:
    model = Model(settings)
    for put in objects:
        model.put(KindOf(put.kind), put.obj.key, put.obj)
    plan = Published().plan(model.drain(now_s=0))

    assert plan is not None
    check_state(model)
    for vhost in model.state().vhosts.values():
        assert vhost is not None
        assert c_reader.validate(encode(vhost).data) == ATSK_OK


@pytest.mark.parametrize("name", fuzzing.PYTHON_TARGETS)
@hypothesis_settings(max_examples=50)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), n_changes=st.integers(1, 6))
def test_no_bytes_break_what_reads_them(build: object, name: str, data: st.DataObject, seed: int, n_changes: int) -> None:
    """Each parser of outside input, with changes to the inputs that its fuzz target starts from."""
    target = python_targets.load(name)
    found = data.draw(st.sampled_from(fuzzing.corpus(name))).read_bytes()
    rng = random.Random(seed)
    for _ in range(n_changes):
        found = target.mutate(found, rng, _changed(rng)) if target.mutate is not None else _changed(rng)(found, len(found) + 16)

    with warnings.catch_warnings():  # cryptography warns of what it will not read one day
        warnings.simplefilter("ignore")
        target.check(found[: target.size_max])


def _changed(rng: random.Random) -> python_targets.MutateBytes:
    def mutate_bytes(data: bytes, size: int) -> bytes:
        at, length = rng.randrange(len(data) + 1), rng.choice((0, 1, 1, 2, 8))
        fresh = bytes(rng.choices(_RARE_BYTES, k=rng.choice((0, 1, 1, 4))))
        return (data[:at] + fresh + data[at + length :])[:size]

    return mutate_bytes
