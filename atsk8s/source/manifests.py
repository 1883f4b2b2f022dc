"""Objects from a directory of YAML (or JSON) files: no cluster at all.

Every `.yaml`, `.yml` and `.json` file in the directory and below it is read, hidden names excepted, in the order of their paths;
each may hold any number of documents and `List`s.  Symbolic links to files are followed, so a mounted ConfigMap or Secret works,
whose files all point through one link that is exchanged on an update; links to directories are not, and cannot loop.

What a fault costs:
* a document of the wrong shape, of an unknown kind or with an invalid object: that document.  If the object was usable before, its
  former version stays until the object is removed;
* a document that is no YAML, or a file that is unreadable, too large or not UTF-8: in a file that was good before, all objects that
  it had stay as they were, because nobody can tell what the new text meant; in a new file, that document (or that file);
* an object that is in two files, or twice in one: the first in file order wins, the other is reported.
A file or object that is gone is deleted.  A directory that is gone changes nothing: everything stays until it is back.

In place of what an API server provides: `metadata.namespace` defaults to "default"; `resourceVersion` is a hash of the object;
`creationTimestamp` defaults to the object's place in file order (0, 1, 2 …; older than any real time), so that the first file wins
where the oldest object would; a Secret's `stringData` is merged over `data`.

Changes are found by comparing file status five times a second: 2 ms of CPU for 1,000 files.  (inotify would need a watch on every
link's target, and does not work on network file systems.)  What changed is read when it has been quiet for 30 ms, so that a file
that is just being written is not taken half; a change shows after 250 ms at most, plus the time to parse.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from atsk8s.api.decode import UNDECODABLE, reason_of
from atsk8s.api.meta import MAX_NAME_CHARS, K, KubeObject, ObjectKey
from atsk8s.errors import KubeError, Reason, RejectError
from atsk8s.source.documents import MAX_DOCUMENTS, Plain, SyntaxFault, load, split_documents
from atsk8s.source.interface import Clock, KindStatus, Problem, SyncBarrier, Wait, is_synced
from atsk8s.source.kinds import KINDS, AnyKind, Kind
from atsk8s.source.manifest_objects import DEFAULT_NAMESPACE, key_of, to_object, yaml_type
from atsk8s.source.store import Listener, Rejection, Store
from atsk8s.threads import Keeper, Kept

_log = logging.getLogger(__name__)

POLL_S = 0.2
QUIET_S = 0.03
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES = 10_000
SUFFIXES = (".yaml", ".yml", ".json")

_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Found:
    """One object of a file, before its place in file order is known."""

    kind: AnyKind
    key: ObjectKey
    obj: KubeObject
    is_dated: bool  # it has a creationTimestamp of its own
    origin: str


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a file held when it had this signature."""

    signature: _Signature | None
    found: tuple[_Found, ...]
    problems: tuple[Problem, ...]


class ManifestSource:
    """See the module and `interface.Source`.

    Args:
        directory: the files; must exist when the source starts.
        watch_namespaces: keep only these namespaces' objects; () for all.
        ignore_namespaces: drop these namespaces' objects.
        own_namespaces: of kinds that are read in the controller's namespaces alone, keep these, whatever the two above say.
        clock: monotonic seconds.
        wait: sleeps, True when the source is to stop; by default the source's own stop event.
        keeper: starts the thread again if it ended too early.
    """

    def __init__(
        self,
        directory: Path,
        *,
        kinds: Sequence[AnyKind] = KINDS,
        watch_namespaces: tuple[str, ...] = (),
        ignore_namespaces: tuple[str, ...] = (),
        own_namespaces: tuple[str, ...] = (DEFAULT_NAMESPACE,),
        clock: Clock = time.monotonic,
        wait: Wait | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._directory = directory
        self._kinds = {kind.name: kind for kind in kinds}
        self._watched = frozenset(watch_namespaces)
        self._ignored = frozenset(ignore_namespaces)
        self._own = frozenset(own_namespaces)
        self._clock = clock
        self._stopping = threading.Event()
        self._wait: Wait = wait or self._stopping.wait
        self._stores: dict[AnyKind, Store[Any]] = {kind: Store(kind) for kind in kinds}
        self._barrier = SyncBarrier(clock)
        self._keeper = keeper or Keeper(clock)
        self._thread: Kept | None = None
        self._moved_at: float | None = None  # when the thread last did anything; None: it has not started
        self._must_read = True  # whatever the signatures say
        self._files: dict[str, _Contents] = {}
        self._problems: tuple[Problem, ...] = ()
        self._looked_at: float | None = None
        self._reason = "not read yet"
        self._n_loads = 0

    # interface.Source ---------------------------------------------------------------------------------------------------------

    def store(self, kind: Kind[K]) -> Store[K]:
        """See `interface.Source`."""
        return self._stores[kind]

    def subscribe(self, listener: Listener) -> None:
        """See `interface.Source`."""
        for store in self._stores.values():
            store.subscribe(listener)

    def start(self) -> None:
        """See `interface.Source`.  An empty directory is legal: files may come."""
        if self._thread is not None or self._stopping.is_set():
            return
        self._signatures()
        self._thread = self._keeper.keep(self.run, name="watch-manifests", purpose="watch")

    def stop(self, timeout_s: float = 5.0) -> bool:
        """See `interface.Source`."""
        self._stopping.set()
        self._barrier.close()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wait_synced(self, timeout_s: float) -> bool:
        """See `interface.Source`."""
        return self._barrier.wait(lambda: is_synced(self.kinds()), timeout_s)

    def kinds(self) -> tuple[KindStatus, ...]:
        """See `interface.Source`."""
        age_s = self._clock() - self._looked_at if self._looked_at is not None else float("inf")
        return tuple(
            KindStatus(
                name=kind.name,
                mandatory=kind.mandatory,
                synced=self._n_loads > 0,
                settled=self._n_loads > 0,
                reason=self._reason,
                n_objects=len(store),
                n_rejected=store.n_rejected,
                n_relists=max(0, self._n_loads - 1),
                n_events=0,
                n_requests=0,
                staleness_s=age_s,
                n_listener_errors=store.n_listener_errors,
                still_s=self._clock() - self._moved_at if self._moved_at is not None else 0.0,
            )
            for kind, store in self._stores.items()
        )

    def problems(self) -> tuple[Problem, ...]:
        """Everything that was wrong with the files when they were last read, in file order."""
        return self._problems

    # Finding changes ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Look and load until `wait` says to stop.  Called again, after something ended it, it reads everything."""
        if self._moved_at is not None:
            self._must_read = True
            for store in self._stores.values():
                store.doubt()
        while not self._stopping.is_set():
            self.look()
            if self._wait(POLL_S):
                return

    def look(self) -> None:
        """Compare the directory with what was read, and read what differs.  Raises nothing."""
        self._moved_at = self._clock()
        try:
            signatures = self._signatures()
            if not self._must_read and signatures == {name: contents.signature for name, contents in self._files.items()}:
                self._looked()
                return
            for _ in range(10):  # a file that never comes to rest is taken as it is: a stale table would be worse
                if self._wait(QUIET_S):
                    return
                before, signatures = signatures, self._signatures()
                if before == signatures:
                    break
            self.load(signatures)
            self._looked()
        except KubeError as error:
            if self._reason != str(error):
                _log.warning("manifests cannot be read", extra={"why": str(error)})
            self._reason = str(error)
        except Exception:  # a bug of ours must not end the thread: changes would go unnoticed for ever
            self._reason = "internal error, see the log"
            _log.exception("reading manifests failed")

    def _looked(self) -> None:
        self._looked_at = self._clock()
        self._reason = ""

    def _signatures(self) -> dict[str, _Signature]:
        """Status of every file, by path below the directory, in file order.

        Raises:
            KubeError: the directory cannot be read.
        """
        found: dict[str, _Signature] = {}
        try:
            for path in self._paths():
                try:
                    info = os.stat(os.path.join(self._directory, path))
                except OSError:  # a dangling link, or a file that has just gone
                    continue
                if stat.S_ISREG(info.st_mode):
                    found[path] = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        except OSError as error:
            what = f"--manifests={self._directory}"
            match error:
                case FileNotFoundError():
                    raise KubeError(f"{what}: no such directory: create it, or name another") from None
                case NotADirectoryError():
                    raise KubeError(f"{what}: is no directory: name the directory that the YAML files are in") from None
                case PermissionError():
                    raise KubeError(
                        f"{what}: cannot be read as uid {os.geteuid()}, gid {os.getegid()}; Traffic Server drops its privileges "
                        "before it loads plugins: let that user read and search it (chmod o+rx)"
                    ) from None
            raise KubeError(f"{what}: {error.strerror}") from None
        return {name: found[name] for name in sorted(found)}

    def _paths(self) -> Iterator[str]:
        pending, n_files = [""], 0
        while pending:
            below = pending.pop()
            try:
                entries = list(os.scandir(os.path.join(self._directory, below)))
            except OSError:
                if below:
                    continue  # a directory below that is unreadable or has just gone costs what is in it
                raise
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                elif entry.name.endswith(SUFFIXES):
                    n_files += 1
                    if n_files > MAX_FILES:
                        raise KubeError(f"--manifests={self._directory}: more than {MAX_FILES} files")
                    yield path

    # Reading ------------------------------------------------------------------------------------------------------------------

    def load(self, signatures: dict[str, _Signature]) -> None:
        """Read what differs from `signatures` and publish everything, each kind in one exchange."""
        files: dict[str, _Contents] = {}
        for name, signature in signatures.items():
            known = self._files.get(name)
            files[name] = known if known is not None and known.signature == signature else self._read(name, signature, known)
        self._files = files
        self._publish()
        self._n_loads += 1
        self._must_read = False
        self._barrier.notify()

    def _read(self, name: str, signature: _Signature, former: _Contents | None) -> _Contents:
        found: list[_Found] = []
        problems: list[Problem] = []
        is_legible = True
        try:
            for line, chunk in self._chunks(name):
                origin = f"{name}:{line}"
                try:
                    for document in self._documents(name, chunk, line):
                        self._take(document, origin, found, problems)
                except SyntaxFault as fault:
                    is_legible = False
                    problems.append(Problem(origin=origin, reason=fault.reason, message=fault.message))
                except RejectError as error:
                    problems.append(Problem(origin=origin, reason=error.reason, message=error.message))
        except RejectError as error:
            is_legible = False
            problems.append(Problem(origin=name, reason=error.reason, message=error.message))
        for problem in problems:
            _log.warning(
                "manifest rejected",
                extra={"file": problem.origin, "reason": problem.reason.value, "detail": problem.message},
            )
        if not is_legible and former is not None and former.found:
            return _Contents(signature, former.found, tuple(problems))
        return _Contents(signature, tuple(found), tuple(problems))

    def _chunks(self, name: str) -> list[tuple[int, str]]:
        """The file's documents as text.

        Raises:
            RejectError: the file is unusable as a whole.
        """
        try:
            # Never blocks: what was a regular file a moment ago may have been exchanged for a pipe.
            with open(os.open(self._directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise RejectError(Reason.UNSUPPORTED, "is no regular file")
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            reason = Reason.FORBIDDEN if isinstance(error, PermissionError) else Reason.NOT_FOUND
            raise RejectError(reason, f"cannot be read as uid {os.geteuid()}: {error.strerror}") from None
        if len(content) > MAX_FILE_BYTES:
            raise RejectError(Reason.TOO_LARGE, f"more than {MAX_FILE_BYTES} bytes: split the file")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RejectError(Reason.MALFORMED, f"not UTF-8 at byte {error.start}") from None
        return [(1, text)] if name.endswith(".json") else split_documents(text)

    def _documents(self, name: str, chunk: str, line: int) -> Iterator[Plain]:
        if not name.endswith(".json"):
            yield from load(chunk, line)
            return
        try:
            document: Plain = msgspec.json.decode(chunk)
        except UNDECODABLE as error:
            raise SyntaxFault(f"not JSON: {reason_of(error)}") from None
        yield document

    def _take(self, document: Plain, origin: str, found: list[_Found], problems: list[Problem]) -> None:
        """Add the document's objects to `found`, or what is wrong with them to `problems`."""
        pending: list[tuple[Plain, str]] = [(document, "")]
        while pending:
            item, implied = pending.pop()
            kind_name = ""
            try:
                if item is None:
                    continue
                if not isinstance(item, dict):
                    raise RejectError(
                        Reason.MALFORMED, f"is a {yaml_type(item)}, expected an object (a map with apiVersion, kind and metadata)"
                    )
                kind_name = str(item.get("kind") or implied)
                items = item.get("items")
                if kind_name.endswith("List") and "items" in item:
                    if not isinstance(items, list | None):
                        raise RejectError(Reason.MALFORMED, f"{kind_name}: items is a {yaml_type(items)}, expected a list")
                    if len(pending) + len(items or ()) > MAX_DOCUMENTS:
                        raise RejectError(Reason.TOO_LARGE, f"{kind_name}: more than {MAX_DOCUMENTS} items")
                    pending.extend((inner, kind_name.removesuffix("List")) for inner in reversed(items or ()))
                    continue
                kind = self._kind_of(item, kind_name, implied)
                obj, key = to_object(kind, item)
                if self._is_wanted(kind, key):
                    found.append(_Found(kind, key, obj, obj.metadata.created_s != 0, origin))
            except RejectError as error:
                named = key_of(self._kinds[kind_name], item) if kind_name in self._kinds else None
                problems.append(
                    Problem(origin=origin, reason=error.reason, message=error.message, kind=kind_name[:MAX_NAME_CHARS], key=named)
                )

    def _kind_of(self, item: dict[str, Plain], kind_name: str, implied: str) -> AnyKind:
        if not kind_name:
            raise RejectError(Reason.MALFORMED, "has no kind: give it apiVersion and kind")
        kind = self._kinds.get(kind_name)
        if kind is None:
            raise RejectError(
                Reason.UNKNOWN_KIND, f"kind {kind_name[:80]!r} is not used here (used are {', '.join(sorted(self._kinds))})"
            )
        version = item.get("apiVersion")
        if version != kind.api_version and not (version is None and implied):
            raise RejectError(
                Reason.UNSUPPORTED, f"{kind_name} of apiVersion {str(version)[:80]!r}: write it as {kind.api_version}"
            )
        return kind

    def _is_wanted(self, kind: AnyKind, key: ObjectKey) -> bool:
        if not kind.namespaced:
            return True
        if kind.is_own:
            return key.namespace in self._own
        return key.namespace not in self._ignored and (not self._watched or key.namespace in self._watched)

    def _publish(self) -> None:
        """Put the files' objects in order, the first of each key winning, and exchange the stores' contents."""
        objects: dict[AnyKind, dict[ObjectKey, KubeObject]] = {kind: {} for kind in self._stores}
        rejected: dict[AnyKind, dict[ObjectKey, Rejection]] = {kind: {} for kind in self._stores}
        problems: list[Problem] = []
        origins: dict[tuple[AnyKind, ObjectKey], str] = {}
        place = 0
        for contents in self._files.values():
            problems += contents.problems
            for found in contents.found:
                place += 1
                first = origins.get((found.kind, found.key))
                if first is not None:
                    message = f"{found.kind.name} {found.key} is already in {first}, which wins: remove one of them"
                    problems.append(
                        Problem(origin=found.origin, reason=Reason.DUPLICATE, message=message, kind=found.kind.name, key=found.key)
                    )
                    continue
                obj = found.obj
                if not found.is_dated:
                    obj = msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, created_s=place - 1))
                objects[found.kind][found.key] = obj
                origins[found.kind, found.key] = found.origin
        for problem in problems:
            kind = self._kinds.get(problem.kind)
            if kind is not None and problem.key is not None and problem.key not in objects[kind]:
                rejected[kind][problem.key] = Rejection(reason=problem.reason, message=problem.message, origin=problem.origin)
        self._problems = tuple(problems)
        for kind, store in self._stores.items():
            store.replace(objects[kind], rejected[kind])
