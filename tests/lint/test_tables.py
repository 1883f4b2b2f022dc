"""Tables that are written twice, in code and in a document or in C and in Python, say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atsk8s import config, metrics
from atsk8s.cluster_settings import keys
from atsk8s.model import annotations

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"


@pytest.mark.parametrize(
    ("name", "what", "table"),
    [
        ("options.md", "", config.options_table()),
        ("metrics.md", "", metrics.metrics_table()),
        ("configmap.md", "keys: ", keys.keys_table()),
        ("configmap.md", "records: ", keys.records_table()),
        *(("annotations.md", f"{scope}: ", annotations.annotations_table(scope)) for scope in annotations.Scope),
    ],
    ids=["options", "metrics", "configmap-keys", "configmap-records", *(f"annotations-{scope}" for scope in annotations.Scope)],
)
def test_document_holds_the_table_of_the_code(name: str, what: str, table: str, pytestconfig: pytest.Config) -> None:
    """`build.py lint -- --update` writes the table between the two marks."""
    path = DOCS / name
    begin_mark, end_mark = f"<!-- generated: {what}begin -->\n", f"<!-- generated: {what}end -->\n"
    content = path.read_text(encoding="utf-8")
    before, _, rest = content.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    assert end, f"docs/{name}: lacks the lines {begin_mark.strip()} and {end_mark.strip()}"
    fresh = f"{before}{begin_mark}{table}{end_mark}{after}"
    if pytestconfig.getoption("--update") and fresh != content:
        path.write_text(fresh, encoding="utf-8")
        content = fresh
    assert content == fresh, f"docs/{name} is not what the code says: python3 build.py lint -- --update"


def test_counters_in_c_are_metrics_in_python() -> None:
    """ATSK_COUNTERS of stats.h and COUNTED_IN_C of metrics.py name the same families, labels and help."""
    header = (CHECKOUT / "plugin_c/controller/stats.h").read_text(encoding="utf-8")
    rows = re.findall(r'X\((\w+), "([^"]*)", "([^"]*)", "([^"]*)"\)', header)
    assert rows, "stats.h: no rows X(id, name, label, help) found"
    families: dict[str, tuple[bool, str]] = {}
    for _, name, label, text in rows:
        has_label, known_text = families.get(name, (bool(label), text))
        assert has_label == bool(label), f"stats.h: {name} with and without a label"
        families[name] = (has_label, known_text or text)
    assert families == {metric.name: (bool(metric.labels), metric.help) for metric in metrics.COUNTED_IN_C}


def test_message_ids_are_documented_and_used_once() -> None:
    """Each ATSKnnnn of the code is a heading of docs/errors.md, and the other way round; a retired one says so there."""
    used: set[str] = set()
    for path in (*CHECKOUT.glob("plugin_c/**/*.[ch]"), *CHECKOUT.glob("atsk8s/**/*.py")):
        used |= set(re.findall(r"\bATSK\d{4}\b", path.read_text(encoding="utf-8")))
    document = DOCS / "errors.md"
    if not used and not document.exists():
        return
    content = document.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (ATSK\d{4})\b(.*)$", content, re.MULTILINE)
    names = [name for name, _ in headings]
    assert len(names) == len(set(names)), "docs/errors.md: an id twice"
    current = {name for name, rest in headings if "retired" not in rest}
    assert used == current
