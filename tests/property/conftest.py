"""The C reader, built once."""

from __future__ import annotations

import subprocess

import pytest

from tests.property.creader import CReader, build


@pytest.fixture(scope="session")
def c_reader() -> CReader:
    try:
        return CReader(build())
    except FileNotFoundError:
        pytest.skip("no C compiler (cc)")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"the compiler failed:\n{error.stderr}", pytrace=False)
