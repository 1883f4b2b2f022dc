"""The build: the C of plugin_c/ and the cffi code into libatsk8s.so, both plugins, and an importable core for tests.

Everything lands in the cache directory under a name that is a hash of what it is made of: an unchanged tree builds nothing, a
changed file compiles itself, and a running server never sees its files change.  Nothing of it is read from the checkout at run
time, so that a checkout that only root can read works.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import prerequisites
from deploy.prerequisites import CHECKOUT, PYTHON, say

PLUGIN_C = CHECKOUT / "plugin_c"
PACKAGE = CHECKOUT / "atsk8s"
SAMPLES = CHECKOUT / "deploy/ats"
SNIPPETS = CHECKOUT / "deploy/lua/snippets.lua"
SAMPLE_PREFIX = "/opt/atsk8s"  # where the samples say that atsk8s is installed
PLUGINS = ("kubernetes_remap", "kubernetes_ssl")
CORE = "libatsk8s.so"
SITE_PACKAGES = "lib/python3.11/site-packages"
PYTHON_INCLUDE = "/usr/include/python3.11"

DEFINES = ("-D_GNU_SOURCE",)
OPTIMISE = ("-O2", "-g", "-fPIC", "-fvisibility=hidden", "-pthread", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Werror",
)
# nodelete: unmapping the core under the Python thread, when a reload drops the last rule that uses it, kills the process.
# ts.h declares the entry points without a visibility: what a plugin exports is said here instead.
PLUGIN_EXPORTS = "{ global: TSPluginInit; TSRemap*; local: *; };\n"
CORE_LINK = ("-Wl,-z,nodelete", "-Wl,-z,relro", f"-Wl,-soname,{CORE}")
LIBRARIES = ("-lurcu-bp", "-lurcu-common", "-lssl", "-lcrypto", "-lpthread", "-ldl")

_N_KEPT = 12  # builds
_KEPT_S = 86400.0


class BuildError(RuntimeError):
    """The compiler, the linker or cffi failed; the message holds what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One finished build."""

    directory: Path

    @property
    def lib(self) -> Path:
        """Where the three shared objects are."""
        return self.directory / "lib"

    @property
    def remap_plugin(self) -> Path:
        """kubernetes_remap.so, for remap.config."""
        return self.lib / "kubernetes_remap.so"

    @property
    def ssl_plugin(self) -> Path:
        """kubernetes_ssl.so, for plugin.config."""
        return self.lib / "kubernetes_ssl.so"

    @property
    def snippets(self) -> Path:
        """snippets.lua, for tslua.so behind remap_plugin."""
        return self.lib / "snippets.lua"

    @property
    def venv(self) -> Path:
        """The virtual environment that the plugins embed by default: atsk8s and all that it needs."""
        return self.directory / "venv"

    @property
    def core(self) -> Path:
        """A directory for sys.path whose `_atsk8s` is the core as a plain module, without Traffic Server."""
        return self.directory / "core"

    @property
    def generated(self) -> Path:
        """The C that cffi wrote."""
        return self.directory / "generated"


def sources() -> list[Path]:
    """Return every C file of the product, sorted."""
    return sorted(PLUGIN_C.rglob("*.c"))


def includes(path: Path, *, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return what `path` includes, directly or through our own headers: "table/trie.h", "ts/ts.h", "Python.h", ..."""
    found: set[str] = set()
    for name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE):
        found.add(name)
        ours = PLUGIN_C / name
        if name not in seen and ours.is_file():
            found |= includes(ours, seen=seen | found)
    return found


def is_host_independent(path: Path) -> bool:
    """Say whether a C file needs neither Traffic Server nor Python: those make up the importable core."""
    return not any(name.startswith("ts/") or name == "Python.h" for name in includes(path))


def compile_flags() -> list[str]:
    """Return the flags of our own C; lint uses the same."""
    return ["-std=c11", *DEFINES, *OPTIMISE, *WARNINGS, f"-I{PLUGIN_C}", "-isystem", PYTHON_INCLUDE]


def build() -> Build:
    """Build what is not built yet, and return it.

    Raises:
        BuildError: something does not compile.
        prerequisites.PrerequisiteError: the virtual environment cannot be made.
    """
    cache = prerequisites.cache_dir()
    venv = prerequisites.ensure_venv("run")
    directory = cache / "build" / _digest(venv)
    complete = directory / ".complete"
    if not complete.exists():
        with prerequisites.locked(cache / "build.lock"):
            if not complete.exists():
                _build_into(directory, venv)
                complete.touch()
                _remove_old(cache / "build", directory)
    os.utime(complete)
    return Build(directory=directory)


def install(prefix: Path) -> Build:
    """Install into `prefix`: lib/ (the plugins), venv/ (Python), etc/ (sample configuration).

    A running server keeps the files that it has mapped: each one is put in place by a rename.

    Raises:
        BuildError: `prefix` cannot be written, or something does not compile.
    """
    if prefix.exists() and not prefix.is_dir():
        raise BuildError(f"--prefix={prefix}: that is a file; name a directory, for example /opt/atsk8s")
    if re.search(r"[\s\"'\\,:$]", str(prefix)):
        raise BuildError(f"--prefix={str(prefix)!r}: no spaces, quotes, commas, colons or $: remap.config could not name it")
    made = build()
    venv = prerequisites.ensure_venv("run")
    umask = os.umask(0o022)  # Traffic Server reads all of it as another user
    try:
        for name in ("lib", "etc"):
            (prefix / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        _install_venv(prefix, venv)
        objects = _compile_all(made.generated, prefix / "venv")
        _link(objects, prefix / "lib")
        _replace(prefix / "lib" / SNIPPETS.name, SNIPPETS.read_text(encoding="utf-8"))
        for sample in sorted(SAMPLES.iterdir()):
            text = sample.read_text(encoding="utf-8").replace(SAMPLE_PREFIX, str(prefix))
            _replace(prefix / "etc" / sample.name, text)
    except OSError as error:
        raise BuildError(f"--prefix={prefix}: {error.strerror} ({error.filename}); as root, or choose another one") from error
    finally:
        os.umask(umask)
    return Build(directory=prefix)


def version() -> str:
    """Return atsk8s.__version__, without importing it."""
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"$', (PACKAGE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError('atsk8s/__init__.py: no line __version__ = "..."')
    return found[1]


def _digest(venv: Path) -> str:
    """Return the name of the build that the present files make."""
    digest = hashlib.sha256()
    parts = [
        *sorted(PLUGIN_C.rglob("*.[ch]")),
        *sorted(PACKAGE.rglob("*.py")),
        CHECKOUT / "deploy/bindings.py",
        SNIPPETS,
        Path(__file__),
    ]
    for path in parts:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(CHECKOUT)}\0{len(content)}\0".encode() + content)
    digest.update(f"{venv}\0{_toolchain()}".encode())
    return digest.hexdigest()[:16]


def _toolchain() -> str:
    """Return what identifies compiler and headers outside the checkout: packages and versions."""
    names = ("gcc-12", "libpython3.11-dev", "libssl-dev", "liburcu-dev", "trafficserver-dev", "libc6-dev")
    command = ["dpkg-query", "-W", "-f", "${Package}=${Version}\n", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _build_into(directory: Path, venv: Path) -> None:
    started_s = time.monotonic()
    if directory.exists():
        shutil.rmtree(directory)
    umask = os.umask(0o022)  # Traffic Server reads all of it as another user
    try:
        for name in ("lib", "core", "generated"):
            (directory / name).mkdir(parents=True)
        script = [str(venv / "bin/python"), "-I", str(CHECKOUT / "deploy/bindings.py"), str(PLUGIN_C), str(directory / "generated")]
        _run(script, "cffi")
        _make_venv_layer(directory / "venv", venv)
        objects = _compile_all(directory / "generated", directory / "venv")
        _link(objects, directory / "lib")
        _replace(directory / "lib" / SNIPPETS.name, SNIPPETS.read_text(encoding="utf-8"))
        core = [path for source, path in objects.items() if source in _core_sources()]
        extension = _compile(directory / "generated/extension.c", _generated_flags())
        _run(["gcc", "-shared", "-o", str(directory / "core/_atsk8s.abi3.so"), *map(str, [*core, extension]), *LIBRARIES], "link")
    finally:
        os.umask(umask)
    say(f"built {directory} in {time.monotonic() - started_s:.1f} s")


def _core_sources() -> set[Path]:
    return {path for path in sources() if is_host_independent(path)}


def _generated_flags() -> list[str]:
    # What cffi writes is not ours to keep free of warnings.
    return ["-std=c11", *DEFINES, *OPTIMISE, "-w", f"-I{PLUGIN_C}", "-isystem", PYTHON_INCLUDE]


def _compile_all(generated: Path, default_venv: Path) -> dict[Path, Path]:
    """Compile every source and the embedding code; return source -> object."""
    jobs: list[tuple[Path, list[str]]] = [(generated / "embedding.c", _generated_flags())]
    for source in sources():
        flags = compile_flags()
        text = source.read_text(encoding="utf-8")
        if "ATSK_DEFAULT_VENV" in text:
            flags.append(f'-DATSK_DEFAULT_VENV="{default_venv}"')
        if "ATSK_VERSION" in text:
            flags.append(f'-DATSK_VERSION="{version()}"')
        if source.stem in PLUGINS:
            flags.append("-fvisibility=default")
        jobs.append((source, flags))
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: _compile(*job), jobs))
    return {source: path for (source, _), path in zip(jobs, objects, strict=True)}


def _compile(source: Path, flags: Sequence[str]) -> Path:
    """Return the object of `source`, from the cache if the same bytes were compiled the same way before."""
    digest = hashlib.sha256(repr((flags, _toolchain())).encode() + Path(__file__).read_bytes())
    for path in (source, *sorted(PLUGIN_C / name for name in includes(source) if (PLUGIN_C / name).is_file())):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    path = prerequisites.cache_dir() / "obj" / f"{source.stem}-{digest.hexdigest()[:24]}.o"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        # Debug information and assertions name plugin_c/table/trie.c, wherever the checkout and the cache are.
        mapped = [
            f"-ffile-prefix-map={CHECKOUT}/=" if source.is_relative_to(CHECKOUT) else f"-ffile-prefix-map={source.parent}=generated"
        ]
        _run(["gcc", *flags, *mapped, "-c", str(source), "-o", str(aside)], f"gcc {source.name}")
        aside.replace(path)
    os.utime(path)
    return path


def _link(objects: dict[Path, Path], lib: Path) -> None:
    """Link the core and both plugins into `lib`, which is where they stay: the plugins find the core by this absolute path."""
    absent = [name for name in PLUGINS if PLUGIN_C / f"{name}.c" not in objects]
    if absent:
        raise BuildError(f"plugin_c/{absent[0]}.c is missing: the checkout is incomplete")
    plugins = {name: objects[PLUGIN_C / f"{name}.c"] for name in PLUGINS}
    core = [path for path in objects.values() if path not in plugins.values()]
    aside = lib / f".{CORE}.new"
    _run(["gcc", "-shared", "-o", str(aside), *map(str, core), *CORE_LINK, "-lpython3.11", *LIBRARIES], f"link {CORE}")
    _check_resolved(aside)
    aside.replace(lib / CORE)
    exports = lib / ".exports.map"
    exports.write_text(PLUGIN_EXPORTS, encoding="utf-8")
    for name, path in plugins.items():
        aside = lib / f".{name}.new"
        # Not $ORIGIN: Traffic Server loads a copy of a remap plugin from its run directory.
        where = [f"-L{lib}", f"-l:{CORE}", "-Wl,--disable-new-dtags", f"-Wl,-rpath,{lib}", "-Wl,-z,relro"]
        where.append(f"-Wl,--version-script={exports}")
        _run(["gcc", "-shared", "-o", str(aside), str(path), *where], f"link {name}.so")
        aside.replace(lib / f"{name}.so")
    exports.unlink()


def _check_resolved(library: Path) -> None:
    """Refuse a library that lacks a function of ours: its other unknowns, TS*, come from traffic_server when it is loaded."""
    undefined = _run(["nm", "-D", "--undefined-only", str(library)], "nm").split()
    missing = sorted({name for name in undefined if name.startswith("atsk_")})
    if missing:
        raise BuildError(f"{CORE}: declared and called, but defined nowhere in plugin_c/: {' '.join(missing)}")


def _make_venv_layer(layer: Path, venv: Path) -> None:
    """Make a virtual environment of atsk8s alone, which sees the packages of the shared one through a .pth file."""
    _run([PYTHON, "-m", "venv", "--without-pip", str(layer)], "venv")
    site = layer / SITE_PACKAGES
    (site / "atsk8s-dependencies.pth").write_text(f"{venv / SITE_PACKAGES}\n", encoding="utf-8")
    _copy_package(site)


def _copy_package(site: Path) -> None:
    shutil.copytree(PACKAGE, site / "atsk8s", ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    for path in (site / "atsk8s").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the copy keeps no modes: the checkout's may be for its owner alone
    (site / "atsk8s").chmod(0o755)
    _precompile(site / "atsk8s")


def _precompile(directory: Path) -> None:
    # By hash, not by time: a copy or an image layer may change a file's time, and the server's user cannot write new ones.
    command = [PYTHON, "-I", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", str(directory)]
    _run(command, f"compileall {directory}")


def _install_venv(prefix: Path, venv: Path) -> None:
    """Put a complete virtual environment at prefix/venv, in one rename."""
    final, fresh, old = (prefix / name for name in ("venv", ".venv.new", ".venv.old"))
    for leftover in (fresh, old):
        if leftover.exists():
            shutil.rmtree(leftover)
    _run([PYTHON, "-m", "venv", "--without-pip", str(fresh)], "venv")
    for script in (fresh / "bin").glob("[aA]ctivate*"):
        script.unlink()  # they hold the path of now; the interpreter itself finds its place by pyvenv.cfg beside it
    settings = fresh / "pyvenv.cfg"
    settings.write_text(settings.read_text(encoding="utf-8").replace(str(fresh), str(final)), encoding="utf-8")
    site = fresh / SITE_PACKAGES
    tools = ("pip", "pip-*", "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
    shutil.copytree(venv / SITE_PACKAGES, site, ignore=shutil.ignore_patterns("__pycache__", *tools), dirs_exist_ok=True)
    _precompile(site)
    _copy_package(site)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _replace(path: Path, content: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(content, encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)


def _remove_old(builds: Path, current: Path) -> None:
    """Remove builds that nobody asked for in a day, but for the newest few: a server may still run from a recent one."""
    aged: list[tuple[float, Path]] = []
    for path in builds.iterdir():
        marker = path / ".complete"
        aged.append((marker.stat().st_mtime if marker.exists() else path.stat().st_mtime, path))
    for used_s, path in sorted(aged, reverse=True)[_N_KEPT:]:
        if path != current and time.time() - used_s > _KEPT_S:
            shutil.rmtree(path, ignore_errors=True)


def _run(command: Sequence[str], what: str) -> str:
    """Run a tool and return its stdout.  Raises BuildError with what it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["LC_ALL"] = "C.UTF-8"
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd="/")
    except FileNotFoundError:
        raise BuildError(f"{what}: {command[0]} is missing; python3 build.py build installs what it needs") from None
    if done.returncode != 0:
        raise BuildError(f"{what} failed:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def report(paths: Iterable[Path]) -> None:
    """Print paths, one a line, for people and for shell scripts."""
    for path in paths:
        print(f"  {path}")
    sys.stdout.flush()
