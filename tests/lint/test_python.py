"""ruff, mypy, import-linter and codespell over the repository, configured by pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import prerequisites

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent  # the virtual environment's: never a tool that happens to be on PATH


def check(*command: str, **environment: str) -> None:
    """Run a tool at the top of the checkout and fail with what it says.  Its caches stay out of the checkout."""
    cache = prerequisites.cache_dir()
    variables = {**os.environ, "RUFF_CACHE_DIR": str(cache / "ruff"), "MYPY_CACHE_DIR": str(cache / "mypy"), **environment}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=CHECKOUT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    check("ruff", "format", "--check", ".")


def test_mypy_strict() -> None:
    check("mypy")


def test_imports_go_down_the_layers() -> None:
    check("lint-imports", "--no-cache", PYTHONPATH=str(CHECKOUT))


def test_spelling() -> None:
    check("codespell")
