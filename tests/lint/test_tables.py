"""Tables that are written twice, in code and in a document or in C and in Python, say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from atsk8s import config, metrics

CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"


@pytest.mark.parametrize(
    ("name", "table"), [("options.md", config.options_table()), ("metrics.md", metrics.metrics_table())], ids=["options", "metrics"]
)
def test_document_holds_the_table_of_the_code(name: str, table: str, pytestconfig: pytest.Config) -> None:
    """`build.py lint -- --update` writes the table between the two marks."""
    path = DOCS / name
    content = path.read_text(encoding="utf-8")
    before, _, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"docs/{name}: lacks the lines {BEGIN.strip()} and {END.strip()}"
    fresh = f"{before}{BEGIN}{table}{END}{after}"
    if pytestconfig.getoption("--update") and fresh != content:
        path.write_text(fresh, encoding="utf-8")
        content = fresh
    assert content == fresh, f"docs/{name} is not what the code says: python3 build.py lint -- --update"


def test_counters_in_c_are_metrics_in_python() -> None:
    """ATSK_COUNTERS of stats.h and COUNTED_IN_C of metrics.py name the same families, labels and help."""
    header = (CHECKOUT / "plugin_c/stats.h").read_text(encoding="utf-8")
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
    for path in (*CHECKOUT.glob("plugin_c/*.[ch]"), *CHECKOUT.glob("atsk8s/**/*.py")):
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
