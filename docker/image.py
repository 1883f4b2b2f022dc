"""The `image` verb: build the container image with whichever of docker, podman or buildah is there.

Needs no registry: a missing debian:bookworm-slim is made with debootstrap (base.py) and imported under a name of our
own, so that nothing in anybody's store pretends to be Debian's image.  Without CAP_SYS_RESOURCE (a root inside a
container) the stock podman settings cannot work: then, or with --store=private, everything lives under the cache
directory.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# build.py and the tests load this file by its path: neither its neighbour nor the checkout need be importable yet.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import base

from deploy import prerequisites

# What the verb needs on Debian 12 when none of the three tools is there; runc and the rest are for running the result.
PACKAGES = ("buildah", "podman", "debootstrap", "runc", "containernetworking-plugins", "iptables", "iproute2", "nftables")

CHECKOUT = prerequisites.CHECKOUT
OFFICIAL_BASE = "docker.io/library/debian:bookworm-slim"
LOCAL_BASE = "localhost/atsk8s-base:bookworm-slim"
BUILD_STAGE = "localhost/atsk8s-build:latest"
DEFAULT_TAG = "localhost/atsk8s:latest"
PULL_TIMEOUT_S = 180
BASE_MAX_AGE_S = 14 * 86400  # then it is made again: its packages age
CAP_SYS_RESOURCE = 24  # linux/capability.h

# Where pip puts things, or which Python it serves, on this machine alone; all its other settings hold in the build too.
_PIP_PLACES = ("cache-dir", "config-file", "log", "prefix", "python", "root", "src", "target", "user")


class ImageError(RuntimeError):
    """The image could not be built; the message says which step failed and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A container tool and how to call it."""

    name: str  # docker, podman or buildah
    env: Mapping[str, str] = field(default_factory=dict)  # added to ours; empty for the user's own store

    @property
    def is_private(self) -> bool:
        """True for a store under the cache directory, which nobody else uses."""
        return "CONTAINERS_STORAGE_CONF" in self.env

    def run(self, *arguments: str, timeout_s: float | None = None, quiet: bool = False) -> int:
        """Run the tool and return its exit status; `quiet` drops its output."""
        sink = subprocess.DEVNULL if quiet else None
        try:
            return subprocess.run(
                [self.name, *arguments],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return 124

    def has_image(self, name: str) -> bool:
        """Tell whether the local store holds `name`."""
        verbs = {"docker": ["image", "inspect"], "podman": ["image", "exists"], "buildah": ["inspect", "--type=image"]}
        return self.run(*verbs[self.name], name, quiet=True) == 0


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"image: {text}", flush=True)


def cache_dir() -> Path:
    """Return the image part of the cache directory.  Raises prerequisites.PrerequisiteError if it cannot be made."""
    return prerequisites.cache_dir() / "image"


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def private_store(directory: Path) -> dict[str, str]:
    """Write containers settings under `directory` that need no CAP_SYS_RESOURCE; return the variables that select them.

    podman 4.3 (Debian 12) otherwise tries to raise limits above its own and refuses hybrid cgroups with crun.
    """
    import resource

    directory.mkdir(parents=True, exist_ok=True)
    n_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    n_processes = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if n_processes == resource.RLIM_INFINITY or n_processes > 32768:
        n_processes = 32768  # podman lowers its own to this first
    if n_files == resource.RLIM_INFINITY:
        n_files = 1 << 20
    networks = directory / "cni"
    networks.mkdir(exist_ok=True)
    (networks / "87-podman-bridge.conflist").write_text(_BRIDGE % {"ipam": directory / "ipam"}, encoding="utf-8")
    storage = directory / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{directory / "store"}"\nrunroot = "{directory / "runroot"}"\n',
        encoding="utf-8",
    )
    runtime = "runc" if shutil.which("runc") else "crun"
    containers = directory / "containers.conf"
    containers.write_text(
        f"""[containers]
default_ulimits = ["nofile={n_files}:{n_files}", "nproc={n_processes}:{n_processes}"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "{runtime}"
events_logger = "file"
lock_type = "file"
tmp_dir = "{directory / "libpod"}"
[network]
network_backend = "cni"
network_config_dir = "{networks}"
cni_plugin_dirs = ["/usr/lib/cni"]
""",
        encoding="utf-8",
    )
    # Cache mounts and blobs go to TMPDIR; they would stay in /var/tmp otherwise.
    scratch = directory / "tmp"
    scratch.mkdir(exist_ok=True)
    return {"CONTAINERS_CONF": str(containers), "CONTAINERS_STORAGE_CONF": str(storage), "TMPDIR": str(scratch)}


# podman's default bridge, with its address leases kept in our directory.
_BRIDGE = """{
  "cniVersion": "0.4.0", "name": "podman",
  "plugins": [
    {"type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "%(ipam)s", "routes": [{"dst": "0.0.0.0/0"}],
              "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall"}
  ]
}
"""


def choose_tool(*, wanted: str = "auto", store: str = "auto") -> Tool:
    """Return the tool to use: docker if its daemon answers, else podman, else buildah.

    Raises:
        ImageError: the wanted one, or all of them, are missing.
    """
    if wanted in ("auto", "docker") and shutil.which("docker"):
        docker = Tool(name="docker", env={"DOCKER_BUILDKIT": "1"})
        if docker.run("version", timeout_s=20, quiet=True) == 0:
            return docker
        if wanted == "docker":
            raise ImageError("docker is installed but its daemon does not answer: start it, or use --tool=podman")
    for name in ("podman", "buildah"):
        if wanted in ("auto", name) and shutil.which(name):
            limited = os.geteuid() == 0 and not _has_capability(CAP_SYS_RESOURCE)
            private = store == "private" or (store == "auto" and limited)
            return Tool(name=name, env=private_store(cache_dir()) if private else {})
    names = "docker, podman or buildah" if wanted == "auto" else wanted
    raise ImageError(f"{names} not found: apt-get install --no-install-recommends {' '.join(PACKAGES)}")


def find_base(tool: Tool, wanted: str) -> str:
    """Return the image name to build from; see --base.

    Raises:
        ImageError: it is neither here, nor to be pulled, nor to be made.
    """
    if wanted not in ("auto", "debootstrap"):
        if tool.has_image(wanted) or tool.run("pull", wanted, timeout_s=PULL_TIMEOUT_S) == 0:
            return wanted
        raise ImageError(f"--base={wanted}: not in the local store and cannot be pulled")
    if wanted == "auto":
        if tool.has_image(OFFICIAL_BASE):
            say(f"base {OFFICIAL_BASE} is here")
            return OFFICIAL_BASE
        if not _is_fresh(cache_dir() / "base.tar"):
            say(f"pulling {OFFICIAL_BASE}")
            if tool.run("pull", OFFICIAL_BASE, timeout_s=PULL_TIMEOUT_S, quiet=True) == 0:
                return OFFICIAL_BASE
            say("no registry answered: making the base with debootstrap")
    return _made_base(tool)


def _is_fresh(tar: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - tar.stat().st_mtime < BASE_MAX_AGE_S
    return False


def _made_base(tool: Tool) -> str:
    tar = cache_dir() / "base.tar"
    fresh = _is_fresh(tar)
    if fresh and tool.has_image(LOCAL_BASE):
        say(f"base {LOCAL_BASE} is here")
        return LOCAL_BASE
    if not fresh:
        prerequisites.ensure_packages(("debootstrap",), purpose="image")
        base.make_base(tar, say)
    say(f"importing {tar} as {LOCAL_BASE}")
    if tool.name == "buildah":
        # buildah has no import: a build from scratch adds the tar.
        with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
            recipe = Path(scratch) / "Dockerfile"
            recipe.write_text('FROM scratch\nADD base.tar /\nCMD ["bash"]\n', encoding="utf-8")
            os.link(tar, Path(scratch) / "base.tar")
            code = tool.run("bud", "--isolation=chroot", "-q", "-t", LOCAL_BASE, scratch)
    else:
        code = tool.run("import", "--change", 'CMD ["bash"]', str(tar), LOCAL_BASE, quiet=True)
    if code != 0:
        raise ImageError(f"{tool.name} could not import {tar} ({code}); delete that file if it is damaged")
    return LOCAL_BASE


@contextlib.contextmanager
def build_secrets(directory: Path) -> Iterator[list[str]]:
    """Yield the --secret arguments that give pip in the build the host's settings and CA bundle."""
    settings = pip_settings(os.environ)
    bundle = settings.pop("cert", "") or os.environ.get("SSL_CERT_FILE", "") or "/etc/ssl/certs/ca-certificates.crt"
    arguments: list[str] = []
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:  # mode 0700: an index URL may hold a password
        if os.path.isfile(bundle):
            arguments += ["--secret", f"id=hostca,src={bundle}"]
            settings["cert"] = "/run/host-ca.crt"
        if settings:
            file = Path(scratch) / "pip.conf"
            parser = configparser.RawConfigParser()
            parser["global"] = settings
            with file.open("w", encoding="utf-8") as sink:
                parser.write(sink)
            arguments += ["--secret", f"id=pipconf,src={file}"]
        yield arguments


def pip_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings on this machine, in pip's own order: files, then PIP_*.  What they are is between pip and its user."""
    home = Path(env.get("HOME") or "/nonexistent")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    if named := env.get("PIP_CONFIG_FILE"):
        files.append(Path(named))
    parser = configparser.RawConfigParser()
    for file in files:
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(file, encoding="utf-8")
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update(parser.items(section))
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {key: value for key, value in found.items() if key not in _PIP_PLACES}


def build(tool: Tool, *, base_image: str, tag: str, context: Path = CHECKOUT, fresh: bool = False) -> None:
    """Build the image from `context` and name it `tag`; layers of earlier builds are reused unless `fresh`.

    Raises:
        ImageError: the build failed; the tool's own output says where.
    """
    arguments = ["-f", str(context / "docker/Dockerfile"), "--build-arg", f"BASE={base_image}"]
    arguments += ["--build-arg", f"VERSION={_version(context)}", "--build-arg", f"REVISION={_revision(context)}"]
    if tool.name == "docker":
        command = ["build", "--network=host", *arguments]
    else:
        # chroot isolation needs no OCI runtime, cgroups or limits; the docker format is what keeps HEALTHCHECK.
        ignore = ["--ignorefile", str(context / "docker/Dockerfile.dockerignore")]
        pull = "--pull-never" if tool.name == "buildah" else "--pull=never"
        command = ["bud" if tool.name == "buildah" else "build", "--isolation=chroot", "--network=host", pull]
        command += ["--format=docker", "--layers", *ignore, *arguments]
    no_cache = ["--no-cache"] if fresh else []
    with build_secrets(cache_dir()) as secrets:
        code = tool.run(*command, *no_cache, *secrets, "-t", tag, str(context))
        if code != 0:
            raise ImageError(f"{tool.name} build ended with {code}; its last lines above say why")
        if tool.is_private:
            # A name keeps the build stage's layers when the nameless images of earlier builds go.
            tool.run(*command, *secrets, "--target=build", "-t", BUILD_STAGE, str(context), quiet=True)
            tool.run(*(["rmi", "--prune"] if tool.name == "buildah" else ["image", "prune", "--force"]), quiet=True)


def _version(context: Path) -> str:
    """Return the package's version, which pyproject.toml takes from the same line."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = (context / "atsk8s/__init__.py").read_text(encoding="utf-8")
        if found := re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE):
            return found[1]
    return "unknown"


def _revision(context: Path) -> str:
    """Return the commit that is checked out, or `unknown` outside a repository."""
    git = ["git", "-c", f"safe.directory={context}", "-C", str(context), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def save(tool: Tool, tag: str, directory: Path) -> Path:
    """Write the image as a docker-archive tar, which docker, podman and containerd load, and return its path.

    Raises:
        ImageError: it could not be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    out = directory / (tag.rsplit("/", 1)[-1].replace(":", "-") + ".tar")
    out.unlink(missing_ok=True)  # podman refuses to overwrite a docker-archive
    if tool.name == "docker":
        code = tool.run("save", "-o", str(out), tag)
    elif tool.name == "podman":
        code = tool.run("save", "-q", "--format=docker-archive", "-o", str(out), tag)
    else:
        code = tool.run("push", "-q", tag, f"docker-archive:{out}:{tag}")
    if code != 0:
        raise ImageError(f"{tool.name} could not write {out} ({code}); is there room?")
    return out


def remove_residue() -> None:
    """Remove the control groups that podman leaves empty; one that is in use cannot be removed, and stays."""
    for parent in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
        with contextlib.suppress(OSError):
            for child in sorted(parent.rglob("*"), reverse=True):
                if child.is_dir():
                    child.rmdir()
            parent.rmdir()


def main(argv: Sequence[str]) -> int:
    """Build the image as `argv` says and return the exit status."""
    parser = argparse.ArgumentParser(prog="build.py image", description="Build the container image.")
    parser.add_argument("--tag", default=DEFAULT_TAG, help="name of the result (default %(default)s)")
    parser.add_argument(
        "--base",
        default="auto",
        help="image to build from, or `debootstrap`; default: debian:bookworm-slim, local or pulled, else debootstrap",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="also write a docker-archive tar there")
    parser.add_argument("--tool", choices=("auto", "docker", "podman", "buildah"), default="auto")
    parser.add_argument("--store", choices=("auto", "user", "private"), default="auto", help="podman's image store")
    parser.add_argument("--fresh", action="store_true", help="reuse neither layers nor the debootstrapped base")
    options = parser.parse_args(argv)
    started_s = time.time()
    try:
        tool = choose_tool(wanted=options.tool, store=options.store)
        say(f"using {tool.name}" + (f", images under {cache_dir()}" if tool.is_private else ""))
        with prerequisites.locked(cache_dir() / "lock"):  # one build's pruning must not meet another's layers
            if options.fresh:
                (cache_dir() / "base.tar").unlink(missing_ok=True)
            base_image = find_base(tool, options.base)
            build(tool, base_image=base_image, tag=options.tag, fresh=options.fresh)
        say(f"built {options.tag} in {time.time() - started_s:.0f} s")
        if options.output is not None:
            out = save(tool, options.tag, options.output)
            say(f"wrote {out} ({out.stat().st_size >> 20} MiB); load it with `docker load -i`, `podman load -i`")
    except (ImageError, base.BaseError, prerequisites.PrerequisiteError, OSError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    finally:
        remove_residue()
    settings = " ".join(f"{name}={value}" for name, value in tool.env.items() if name.startswith("CONTAINERS_"))
    say(f"run it:  {settings + ' ' if settings else ''}{tool.name if tool.name != 'buildah' else 'podman'} run --rm \\")
    print("    --read-only --tmpfs /run/ats:mode=1777 --cap-drop ALL --security-opt no-new-privileges \\")
    print(f"    -p 8080:8080 -p 8443:8443 -v DIR:/manifests:ro {options.tag} --manifests=/manifests")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
