"""Tables in the documents are made from the tables in the code; `build.py lint -- --update` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from atsk8s.config import options_table
from atsk8s.metrics import COUNTED_IN_C, MetricType, metrics_table

CHECKOUT = Path(__file__).resolve().parents[2]
# X(id, "name", "label", "help") of ATSK_COUNTERS.
_COUNTER = re.compile(r'X\(\s*\w+,\s*"(?P<name>\w+)",\s*"(?P<label>\w*)",\s*"(?P<help>[^"]*)"\)')


@pytest.mark.parametrize(("document", "table"), [("options.md", options_table), ("metrics.md", metrics_table)])
def test_the_document_has_the_table_of_the_code(document: str, table: Callable[[], str], request: pytest.FixtureRequest) -> None:
    path = CHECKOUT / "docs" / document
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition("\n| ")
    after = rest.partition("\n\n")[2]
    expected = f"{before}\n{table()}" + (f"\n{after}" if after else "")
    if request.config.getoption("--update"):
        path.write_text(expected, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == expected, f"docs/{document}: run build.py lint -- --update and review the diff"


def test_the_counters_of_c_are_those_of_the_metrics_table() -> None:
    source = (CHECKOUT / "plugin_c/stats.h").read_text(encoding="utf-8").replace("\\\n", " ")
    counters = list(_COUNTER.finditer(source))
    names = list(dict.fromkeys(counter["name"] for counter in counters))
    helps = {counter["name"]: counter["help"] for counter in counters if counter["help"]}
    labelled = {counter["name"] for counter in counters if counter["label"]}

    assert names == [metric.name for metric in COUNTED_IN_C]
    assert helps == {metric.name: metric.help for metric in COUNTED_IN_C}
    assert labelled == {metric.name for metric in COUNTED_IN_C if metric.labels}
    assert {metric.type for metric in COUNTED_IN_C} == {MetricType.COUNTER}
