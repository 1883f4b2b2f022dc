"""The `image` verb, docker/image.py, as a module of the tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    """Return docker/image.py as a module; it is no package, because `build.py` loads it by its path."""
    spec = importlib.util.spec_from_file_location("image_verb", CHECKOUT / "docker/image.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


image_verb = _load()
