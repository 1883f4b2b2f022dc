"""Rules about the repository's text: sizes, names, secrets, places, sleeping tests, links and tables in the documentation."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".import_linter_cache"}
LINES_MAX, TEST_LINES_MAX = 500, 800
GENERATED = {"tests/controlplane/go.sum", "tests/controlplane/go.mod", "requirements.lock", "requirements-dev.lock", "LICENSE"}


def files() -> list[Path]:
    """Return every file of the repository: what git tracks or would track; everything, where there is no git."""
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        found = [CHECKOUT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = []
        for directory, directories, names in os.walk(CHECKOUT):
            directories[:] = [name for name in directories if name not in SKIPPED]
            found += [Path(directory) / name for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


FILES = files()


def text_of(path: Path) -> str:
    """Return a file's text; an empty string for a binary file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


PYTHON = [path for path in FILES if path.suffix == ".py"]
CODE = [path for path in FILES if path.suffix in (".py", ".c", ".h")]
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def test_files_are_short_enough() -> None:
    long = []
    for path in CODE:
        n_lines = len(text_of(path).splitlines())
        if n_lines > (TEST_LINES_MAX if name_of(path).startswith("tests/") else LINES_MAX):
            long.append(f"{name_of(path)}: {n_lines}")
    assert not long, f"longer than {LINES_MAX} lines (tests {TEST_LINES_MAX}): split, or defend it in an ADR: {long}"


def test_no_file_is_named_for_nothing() -> None:
    vague = re.compile(r"(^|_)(utils?|helpers?|common|misc|manager|stuff)(_|$)")
    assert not [name_of(path) for path in CODE if vague.search(path.stem)]


def test_no_private_key_or_token_is_committed() -> None:
    """A key in the sources is a key that everybody has; tests make theirs."""
    marker = "-----BEGIN " + "{}PRIVATE KEY-----"  # put together, so that this file does not match
    kinds = ("", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED ")
    encoded = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]*(UFJJVkFURSBLRVk|BSSVZBVEUgS0VZ|QUklWQVRFIEtFW)")  # the same in base64
    jwt = re.compile(r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}")
    found = []
    for path in FILES:
        content = text_of(path)
        whole_key = any(re.search(re.escape(marker.format(kind)) + r"\s+[A-Za-z0-9+/]{40}", content) for kind in kinds)
        if whole_key or encoded.search(content) or jwt.search(content):
            found.append(name_of(path))
    assert not found, f"private keys or tokens in {found}"


def test_no_registry_or_machine_is_named() -> None:
    """Where packages come from is the machine's business (pip.conf, GOPROXY, sources.list)."""
    # Each in two halves, so that this file does not match.
    halves = (("pypi", r"\.org"), ("pythonhosted", r"\.org"), ("proxy", r"\.golang"), ("index", "-url=http"), ("/work", "/main"))
    places = re.compile("|".join(map("".join, halves)))
    assert not [name_of(path) for path in FILES if places.search(text_of(path))]


def test_tests_wait_on_conditions() -> None:
    """No time.sleep, however it was imported: it is either too short on a busy machine or too long on every other."""
    found = []
    for path in PYTHON:
        if not name_of(path).startswith("tests/"):
            continue
        for node in ast.walk(ast.parse(text_of(path))):
            if (
                isinstance(node, ast.Attribute)
                and node.attr == "sleep"
                and isinstance(node.value, ast.Name)
                and node.value.id == "time"
            ):
                found.append(f"{name_of(path)}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "time" and any(alias.name == "sleep" for alias in node.names):
                found.append(f"{name_of(path)}:{node.lineno}")
    assert not found, f"time.sleep in {found}"


def test_every_todo_names_its_issue() -> None:
    todo = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
    found = [
        f"{name_of(path)}:{number}"
        for path in CODE
        if path != Path(__file__)
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if todo.search(line)
    ]
    assert not found, f"TODO without an issue, as in TODO(#12): {found}"


def test_python_has_docstrings() -> None:
    """Modules say what they are for; so do public functions and classes of the product."""
    found = []
    for path in PYTHON:
        tree = ast.parse(text_of(path))
        if tree.body and ast.get_docstring(tree) is None:
            found.append(name_of(path))
    assert not found, f"modules without a docstring: {found}"


def test_c_files_open_with_their_purpose() -> None:
    assert not [name_of(path) for path in CODE if path.suffix in (".c", ".h") and not text_of(path).startswith("/*")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links of a document, and the headings they name."""
    content = re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        led = (path.parent / name) if name else path
        assert led.exists(), f"{name_of(path)} links to {target}, which is not there"
        if anchor and led.suffix == ".md":
            assert anchor in _anchors(text_of(led)), f"{name_of(path)} links to {target}: no such heading"


def _anchors(content: str) -> set[str]:
    headings = re.findall(r"^#+ +(.+?) *$", content, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_lock_files_agree() -> None:
    """What tests run with is what is embedded, and more."""
    run, dev = (set(_pins(CHECKOUT / name)) for name in ("requirements.lock", "requirements-dev.lock"))
    assert run <= dev, f"requirements-dev.lock lacks or differs in {sorted(run - dev)}"


def _pins(path: Path) -> list[str]:
    lines = [line for line in text_of(path).splitlines() if line and not line.startswith("#")]
    loose = [line for line in lines if re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!+]+", line) is None]
    assert not loose, f"{path.name}: not an exact version: {loose}"
    return lines
