"""Child processes of the tests: where they run, what they wrote, and their certain end.

A Place is where processes run and sockets live: this machine's loopback, or a PodNet.  Every child's output goes to a
file, so that no child ever blocks on a full pipe and a failure can show what the child said.  No child outlives the
test run, not even when the run is SIGKILLed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tests.harness.patience import stretched

T = TypeVar("T")

# How often a condition is looked at.  Small against everything waited for, large against the cost of one look.
_STEP_S = 0.02
_LOG_TAIL_BYTES = 4000


class ProcessError(Exception):
    """A child process did not start, ended by itself, or did not stop; the text carries the end of its log."""


class ConditionTimeoutError(AssertionError):
    """A condition did not come true in time; the text says which, and what was last seen."""


def await_condition(what: str, probe: Callable[[], T | None], *, timeout_s: float = 30.0) -> T:
    """Call `probe` until it returns something true, and return that.

    Args:
        what: the condition in words, for the error: "EndpointSlice of default/app has 2 endpoints".
        probe: called at least once, also after the deadline has passed.  An OSError or AssertionError from it means
            "not yet" and is reported if time runs out; every other exception ends the wait at once.
        timeout_s: bound of the whole wait in seconds; on a busy machine it is stretched (patience.py).

    Raises:
        ConditionTimeoutError: the condition did not come true.
    """
    began_s = time.monotonic()
    never = threading.Event()
    while True:
        is_last = time.monotonic() >= began_s + stretched(timeout_s)
        last: object
        try:
            result = probe()
            if result:
                return result
            last = result
        except (OSError, AssertionError) as error:
            last = repr(error)
        if is_last:
            raise ConditionTimeoutError(f"not true after {time.monotonic() - began_s:.1f} s: {what}; last seen: {last}")
        never.wait(_STEP_S)


class Place(Protocol):
    """Where processes run and sockets live."""

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` in this place."""

    def open_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Return a new unbound socket that belongs to this place's network."""

    def process_id(self, popen: subprocess.Popen[bytes]) -> int:
        """Return the process id, as this process sees it, of the command that `popen` runs."""


class Loopback:
    """This machine itself, for what needs no addresses but 127.0.0.1 and ::1.

    Children are tied to the *thread* that starts them (PR_SET_PDEATHSIG of prctl(2)): start them from a thread that
    lives as long as they are wanted, in a test run the main one.  A child that changes its user loses the tie, and
    outlives a test run that is SIGKILLed; in a PodNet nothing does.
    """

    def argv(self, command: Sequence[str]) -> list[str]:
        """Return `command` made to die with this process."""
        return ["setpriv", "--pdeathsig", "KILL", "--", *command]

    def open_socket(self, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
        """Return a plain socket."""
        return socket.socket(family, kind)

    def process_id(self, popen: subprocess.Popen[bytes]) -> int:
        """Return the child's own id: setpriv replaces itself by the command."""
        return popen.pid


LOOPBACK = Loopback()


def address_family(ip: str) -> socket.AddressFamily:
    """Return AF_INET6 for an address with a colon, else AF_INET."""
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def connect(place: Place, ip: str, port: int, *, timeout_s: float = 15.0, source: str | None = None) -> socket.socket:
    """Return a TCP connection made inside `place`, from the address `source` if given.  Raises OSError.

    It keeps `timeout_s` as its timeout.
    """
    sock = place.open_socket(address_family(ip), socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        if source is not None:
            sock.bind((source, 0))
        sock.connect((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def listen(place: Place, ip: str, port: int, *, backlog: int = 64) -> socket.socket:
    """Return a listening TCP socket inside `place`; port 0 takes a free one.  Raises OSError."""
    sock = place.open_socket(address_family(ip), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def free_ports(place: Place, ip: str, count: int) -> list[int]:
    """Return `count` different ports that were free a moment ago.

    They are held together until all are known, so they differ; a stranger may still take one before its user binds.
    """
    with contextlib.ExitStack() as held:
        return [held.enter_context(listen(place, ip, 0)).getsockname()[1] for _ in range(count)]


def is_listening(place: Place, ip: str, port: int) -> bool:
    """Say whether something accepts TCP connections at ip:port; for await_condition."""
    try:
        connect(place, ip, port, timeout_s=1.0).close()
    except OSError:
        return False
    return True


@dataclass(slots=True, kw_only=True, eq=False)
class Child:
    """One running child process and the file that holds its stdout and stderr."""

    name: str
    place: Place
    log_path: Path
    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The id of the process itself, not of the commands that put it in its place.

        Raises:
            ProcessError: it has ended.
        """
        if self.popen.poll() is not None:
            raise ProcessError(self._failure(f"has ended with status {self.popen.returncode}"))
        return self.place.process_id(self.popen)

    @property
    def status(self) -> int | None:
        """None while it runs; then its exit status, negative for a signal."""
        return self.popen.poll()

    def log(self) -> str:
        """Return everything it wrote so far, across restarts that shared the log file."""
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; an ended process gets none, silently, as there is nothing left to stop."""
        if self.popen.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, ProcessError):
            os.kill(self.pid, number)
        if number == signal.SIGCONT and self.popen.poll() is None:
            # nsenter stops itself along with the child it waits for, and is not woken with it.
            os.kill(self.popen.pid, signal.SIGCONT)

    def pause(self) -> None:
        """Stop it (SIGSTOP): the kernel still completes handshakes for it, nobody answers; its threads have stopped by then."""
        self.signal(signal.SIGSTOP)
        await_condition(f"every thread of {self.name} has stopped", self._is_stopped)

    def _is_stopped(self) -> bool:
        states = [
            task.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{self.popen.pid}/task").glob("*/stat")
        ]
        return bool(states) and set(states) <= {"T", "Z"}

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def kill(self) -> int:
        """End it without warning (SIGKILL) and return its exit status; also works on a paused or ended process."""
        self.signal(signal.SIGKILL)
        if self.popen.poll() is None:
            os.kill(self.popen.pid, signal.SIGCONT)  # a nsenter that stopped with its child must wake to see it die
        return self._waited(10.0)

    def stop(self, *, timeout_s: float = 10.0) -> int:
        """End it politely (SIGTERM) and return its exit status.

        Raises:
            ProcessError: it was still there after `timeout_s` seconds, stretched (patience.py); it has been killed by then.
        """
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(stretched(timeout_s))
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProcessError(self._failure(f"did not end within {timeout_s:g} s (stretched) of SIGTERM; killed")) from None

    def await_ready(self, what: str, probe: Callable[[], T | None], *, timeout_s: float = 30.0) -> T:
        """Wait as await_condition does, but give up at once when the process ends.

        Raises:
            ProcessError: it ended, or the condition did not come true; with the end of its log.
        """

        def alive_and_ready() -> T | None:
            if self.popen.poll() is not None:
                raise ProcessError(self._failure(f"ended with status {self.popen.returncode} before: {what}"))
            return probe()

        try:
            return await_condition(what, alive_and_ready, timeout_s=timeout_s)
        except ConditionTimeoutError as error:
            raise ProcessError(self._failure(str(error))) from error

    def _waited(self, timeout_s: float) -> int:
        try:
            return self.popen.wait(stretched(timeout_s))
        except subprocess.TimeoutExpired:
            raise ProcessError(self._failure(f"is not gone {timeout_s:g} s after SIGKILL")) from None

    def _failure(self, what: str) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - _LOG_TAIL_BYTES))
            tail = log.read().decode(errors="replace")
        return f"{self.name} {what}; end of {self.log_path}:\n{tail}"


def start(
    place: Place,
    command: Sequence[str],
    *,
    name: str,
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """Start `command` in `place`, appending its stdout and stderr to `log_path`.

    Args:
        place: where to run it.
        command: absolute path or name on PATH, and arguments; no shell.
        name: what errors call it.
        log_path: appended to, so that a restart keeps what was there.
        env: its whole environment; None inherits ours.
        cwd: its working directory; None leaves it to the place (a PodNet's is "/").

    Raises:
        OSError: the program that enters the place is missing.  A missing `command` shows as an ended child.
    """
    # By env(1), not by Popen: entering a mount namespace resets the working directory.
    moved = command if cwd is None else ["env", "-C", str(cwd), *command]
    with log_path.open("ab") as log:
        # In a session of its own: Ctrl-C on the test run must not end it before its fixture does.
        popen = subprocess.Popen(
            place.argv(moved), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
    return Child(name=name, place=place, log_path=log_path, popen=popen)


@contextlib.contextmanager
def running(child: Child) -> Generator[Child]:
    """End `child` when the block ends: politely, and by SIGKILL when the block failed."""
    try:
        yield child
    except BaseException:
        child.kill()
        raise
    child.stop()
