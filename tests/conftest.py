"""What all kinds of tests share: options, markers by folder, the build, the seed, and what became of skips."""

from __future__ import annotations

import collections
import os
import secrets
import sys
import time
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

from deploy import compile as compiler
from deploy import prerequisites

TESTS = Path(__file__).resolve().parent
_STARTED_S = time.monotonic()
_BUILD = pytest.StashKey[compiler.Build]()
_BUILD_FAILURE = pytest.StashKey[str]()
_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that build.py passes on, and --update for golden files."""
    group = parser.getgroup("atsk8s")
    group.addoption("--require-all", action="store_true", help="a test that this machine cannot run fails, it is not skipped")
    group.addoption("--soak", type=float, default=0.0, metavar="MINUTES", help="everything at once for so long (faults)")
    group.addoption("--starts", type=int, default=0, metavar="N", help="also start and stop under load N times (integration)")
    group.addoption("--update", action="store_true", help="rewrite golden files by what the code gives; review the diff")


def pytest_configure(config: pytest.Config) -> None:
    """Fix the seed, make the core importable, and set hypothesis up."""
    seed = int(os.environ.get("ATSK8S_SEED") or secrets.randbelow(2**32))
    os.environ["ATSK8S_SEED"] = str(seed)  # children see the same
    config.stash[_SEED] = seed
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed
    database = DirectoryBasedExampleDatabase(prerequisites.cache_dir() / "hypothesis/examples")
    hypothesis.settings.register_profile("atsk8s", deadline=None, print_blob=True, database=database)
    hypothesis.settings.load_profile("atsk8s")
    named = os.environ.get("ATSK8S_BUILD")
    if not named and _asks_only_for_pure_tests(config):
        config.stash[_BUILD_FAILURE] = "not built: the kinds asked for do without"
        return
    try:
        built = compiler.Build(directory=Path(named)) if named else compiler.build()
    except (compiler.BuildError, prerequisites.PrerequisiteError) as error:
        config.stash[_BUILD_FAILURE] = str(error)  # tests without a need for it still run
    else:
        config.stash[_BUILD] = built
        os.environ["ATSK8S_BUILD"] = str(built.directory)
        sys.path.insert(0, str(built.core))


def _asks_only_for_pure_tests(config: pytest.Config) -> bool:
    paths = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    inside = [path.relative_to(TESTS).parts for path in paths if path.is_relative_to(TESTS)]
    return len(inside) == len(paths) and all(parts[:1] in (("unit",), ("golden",), ("lint",)) for parts in inside)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is tested, and by which seed."""
    built = config.stash.get(_BUILD, None)
    shown = str(built.directory) if built else config.stash[_BUILD_FAILURE]
    return [f"build: {shown}", f"seed: {config.stash[_SEED]} (ATSK8S_SEED)"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its kind, which is its folder; leave the soak tests out unless --starts asks for them."""
    left_out = []
    for item in items:
        if item.path.is_relative_to(TESTS):
            item.add_marker(item.path.relative_to(TESTS).parts[0])
        if item.get_closest_marker("soak") and not config.getoption("--starts"):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _required(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    """Turn a skip into a failure when --require-all is given; an expected failure (xfail) is none."""
    if config.getoption("--require-all") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"--require-all: this machine must run it, but: {_reason(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _required(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _required(report, collector.config)
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what was skipped, by reason, and how to repeat the run."""
    skipped: dict[str, list[str]] = collections.defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        skipped[_reason(report)].append(report.nodeid)
    terminalreporter.section("what did not run")
    for reason, names in sorted(skipped.items()):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        terminalreporter.write_line(f"{len(names)} skipped: {reason}\n    {shown}")
    n_left_out = len(terminalreporter.stats.get("deselected", ()))
    n_skipped = sum(map(len, skipped.values()))
    terminalreporter.write_line(f"{n_skipped} skipped in all; {n_left_out} left out (soak tests run with --starts alone)")
    terminalreporter.write_line(f"seed {config.stash[_SEED]}; {time.monotonic() - _STARTED_S:.0f} s")


@pytest.fixture(scope="session")
def build(pytestconfig: pytest.Config) -> compiler.Build:
    """The build under test: plugins, embedded virtual environment, importable core.  Fails with the compiler's words."""
    if _BUILD not in pytestconfig.stash:
        pytest.fail(pytestconfig.stash[_BUILD_FAILURE], pytrace=False)
    return pytestconfig.stash[_BUILD]


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run, for every random choice that is not hypothesis's."""
    return pytestconfig.stash[_SEED]


@pytest.fixture(scope="session")
def soak_starts(pytestconfig: pytest.Config) -> int:
    """How many starts --starts asks for; 0 without it."""
    return int(pytestconfig.getoption("--starts"))


@pytest.fixture(scope="session")
def soak_minutes(pytestconfig: pytest.Config) -> float:
    """How many minutes --soak asks for; 0 without it."""
    return float(pytestconfig.getoption("--soak"))
