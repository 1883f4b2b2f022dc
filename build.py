#!/usr/bin/env python3
"""The one entry point: `python3 build.py VERB`; without a verb it lists them.

Starts under any python3 >= 3.9 and goes on under Debian's own 3.11, whose library Traffic Server embeds.  Each verb installs
what it lacks and says so.  What is longer than a few lines lives beside what it serves: deploy/, tests/suite.py, docker/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List, NoReturn, Tuple

CHECKOUT = Path(__file__).resolve().parent
sys.path.insert(0, str(CHECKOUT))
sys.dont_write_bytecode = True  # the checkout may belong to somebody else

from deploy import prerequisites  # noqa: E402


def demo(arguments: List[str]) -> int:
    """[--once] [--http-port N] ...: start Traffic Server over sample manifests and real backends, show requests and answers"""
    prerequisites.ensure_packages(prerequisites.DEMO, purpose="demo")
    from deploy import compile as compiler
    from deploy import server

    server.check_reachable(prerequisites.cache_dir())
    built = compiler.build()
    _become(built.venv / "bin/python", ["-m", "deploy.demo", *arguments], ATSK8S_BUILD=str(built.directory))


def test(arguments: List[str]) -> int:
    """[KIND...] [--require-all] [--soak MINUTES] [--starts N] [--document] [-- PYTEST ARGUMENTS]: run the tests"""
    from tests import suite

    return suite.main(arguments)


def build(arguments: List[str]) -> int:
    """: compile the core and both plugins into the cache directory and print where they are"""
    _parser("build", build).parse_args(arguments)
    prerequisites.ensure_packages(prerequisites.BUILD, purpose="build")
    from deploy import compile as compiler

    built = compiler.build()
    compiler.report([built.remap_plugin, built.ssl_plugin, built.lib / compiler.CORE, built.snippets, built.venv])
    return 0


def install(arguments: List[str]) -> int:
    """--prefix DIR: install plugins, Python and sample configuration, and print the two lines to paste"""
    parser = _parser("install", install)
    parser.add_argument("--prefix", type=Path, required=True, metavar="DIR", help="for example /opt/atsk8s")
    prefix = parser.parse_args(arguments).prefix.absolute()
    prerequisites.ensure_packages(prerequisites.BUILD, purpose="install")
    from deploy import compile as compiler

    installed = compiler.install(prefix)
    print(f"\nInstalled in {prefix}: lib/ (plugins), venv/ (Python), etc/ (sample configuration). Running servers need a restart.")
    print("\nremap.config, for HTTP and HTTPS requests:")
    print(f"  map / http://localhost @plugin={installed.remap_plugin} @pparam=--kubeconfig=/path/to/kubeconfig")
    print("\nWith --snippets (docs/snippets.md) that line goes on, nothing between:")
    print(f"  @plugin=tslua.so @pparam=--states=64 @pparam={installed.snippets}")
    print("\nplugin.config, for certificates:")
    print(f"  {installed.ssl_plugin} --kubeconfig=/path/to/kubeconfig")
    print("\nIn a pod leave --kubeconfig out; without a cluster use --manifests=DIR. Offline tools:")
    print(f"  {installed.venv}/bin/python -m atsk8s --help")
    return 0


def lint(arguments: List[str]) -> int:
    """[-- PYTEST ARGUMENTS]: ruff, mypy, import-linter, clang-format, clang-tidy and the repository's own rules"""
    return test(["lint", *arguments])


def bench(arguments: List[str]) -> int:
    """[ARGUMENTS]: measure what design budgets name, against bare Traffic Server in the same run"""
    prerequisites.ensure_packages(prerequisites.BENCH, purpose="bench")
    from deploy import compile as compiler

    built = compiler.build()
    python = prerequisites.ensure_venv("dev") / "bin/python"
    _become(python, ["-m", "benchmarks", *arguments], ATSK8S_BUILD=str(built.directory))


def fuzz(arguments: List[str]) -> int:
    """--minutes N [TARGET...] | --replay TARGET FILE...: feed mutated bytes to every parser of outside input, N minutes a target"""
    parser = _parser("fuzz", fuzz)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--minutes", type=float, metavar="N", help="minutes for each target; fractions are fine")
    wanted.add_argument(
        "--replay", nargs="+", metavar="TARGET FILE", help="run files, of a crash for instance, through a target once"
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="with --minutes: these alone; they are tests/fuzz/fuzz_*")
    given = parser.parse_args(arguments)
    if given.minutes is not None and not 0 < given.minutes < 1e6:
        parser.error(f"--minutes={given.minutes:g}: expected a number above 0")
    prerequisites.ensure_packages(prerequisites.FUZZ, purpose="fuzz")
    from tests.fuzz import fuzzing

    if given.replay:
        return int(fuzzing.repeat(given.replay[0], [Path(file) for file in given.replay[1:]]))
    return int(fuzzing.run(given.minutes, given.targets))


def image(arguments: List[str]) -> int:
    """[--tag NAME] [--output DIR] ...: build the container image with docker, podman or buildah"""
    if not any(shutil.which(tool) for tool in ("docker", "podman", "buildah")):
        prerequisites.ensure_packages(prerequisites.image_packages(), purpose="image")
    _become(Path(prerequisites.PYTHON), [str(CHECKOUT / "docker/image.py"), *arguments])


Verb = Callable[[List[str]], int]
VERBS: Dict[str, Verb] = {verb.__name__: verb for verb in (demo, test, build, install, lint, bench, fuzz, image)}


def _described(verb: Verb) -> Tuple[str, str]:
    synopsis, _, text = (verb.__doc__ or "").partition(":")
    return f"{verb.__name__} {synopsis}".strip(), text.strip()


def _parser(name: str, verb: Verb) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"build.py {name}", description=_described(verb)[1])


def _become(python: Path, arguments: List[str], **environment: str) -> NoReturn:
    """Go on as another Python, with the checkout's modules: signals and the exit status need no forwarding."""
    sys.stdout.flush()
    merged = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    merged.update(environment, PYTHONPATH=str(CHECKOUT), PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
    os.execve(str(python), [str(python), *arguments], merged)


def _become_debian_python() -> None:
    """Go on under /usr/bin/python3.11, whatever python3 is first on PATH (pyenv's, a newer or an older one)."""
    if sys.version_info[:2] == (3, 11) and sys.base_prefix == "/usr":
        return
    prerequisites.ensure_packages(prerequisites.PYTHON_PACKAGES, purpose="build.py")
    _become(Path(prerequisites.PYTHON), [str(Path(__file__).resolve()), *sys.argv[1:]])


def main() -> int:
    """Run the verb that the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
        known = asked in ("-h", "--help", "help")
        out = sys.stdout if known else sys.stderr
        if not known:
            print(f"build.py: no verb {asked!r}\n", file=out)
        print("usage: python3 build.py VERB\n", file=out)
        for verb in VERBS.values():
            synopsis, text = _described(verb)
            print(f"  {synopsis}\n      {text}", file=out)
        return 0 if known else 2
    try:
        _become_debian_python()
        return VERBS[sys.argv[1]](sys.argv[2:])
    except RuntimeError as error:
        # Each module's own error: it says what is wrong and what to do; anything else is a defect and shows its traceback.
        if type(error) is RuntimeError:
            raise
        print(f"build.py {sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"build.py {sys.argv[1]}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
