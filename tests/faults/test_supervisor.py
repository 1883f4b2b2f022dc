"""The supervisor of the image by itself: what it starts again, what it passes up, when it gives up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from deploy.prerequisites import CHECKOUT, PYTHON
from tests.harness import processes

SUPERVISOR = [PYTHON, "-I", "-S", str(CHECKOUT / "docker/supervisor.py")]
TIMEOUT_S = 20


@pytest.fixture
def log(tmp_path: Path) -> Generator[Path]:
    """What the supervised program writes: a line a start, its process id."""
    path = tmp_path / "starts"
    path.touch()
    yield path
    for line in path.read_text().split():
        assert not Path(f"/proc/{line}").exists(), f"process {line} is left"


def supervised(script: str, log: Path, *, before: str = ":") -> subprocess.Popen[bytes]:
    """Start a shell script under the supervisor; it does `before`, then says its process id."""
    command = [*SUPERVISOR, "/bin/sh", "-c", f'{before}; echo $$ >> "$0"; {script}', str(log)]
    return subprocess.Popen(processes.LOOPBACK.argv(command), stderr=subprocess.PIPE)


def ended(popen: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Status and stderr."""
    _, said = popen.communicate(timeout=TIMEOUT_S)
    return popen.returncode, said.decode()


@pytest.mark.parametrize("status", [0, 1, 2, 70])
def test_a_status_is_passed_up(log: Path, status: int) -> None:
    """A program that ends by itself has decided so: a start that was refused is not tried again."""
    assert ended(supervised(f"exit {status}", log)) == (status, "")
    assert len(log.read_text().split()) == 1


def test_a_crash_is_started_again_and_given_up_when_it_repeats(log: Path) -> None:
    status, said = ended(supervised("kill -SEGV $$", log))
    assert status == 128 + signal.SIGSEGV
    assert len(log.read_text().split()) == 6
    assert said.count("starting it again") == 5 and said.rstrip().endswith("6 times within 60 s: given up")


@pytest.mark.parametrize(
    ("before", "script", "status"), [("trap 'exit 0' TERM", "while :; do sleep 0.05; done", 0), (":", "exec sleep 60", 143)]
)
def test_sigterm_is_passed_on_and_ends_it(log: Path, before: str, script: str, status: int) -> None:
    """With the program's own status; 143 for one that had no handler yet, which tini takes for a clean end."""
    popen = supervised(script, log, before=before)
    processes.await_condition("it runs", lambda: log.read_text().split())
    popen.send_signal(signal.SIGTERM)
    assert ended(popen) == (status, "")


def test_a_stop_in_the_middle_of_a_crash_ends_it(log: Path) -> None:
    """Killed, started again, told to end: the second one ends it."""
    popen = supervised("exec sleep 60", log)
    first = processes.await_condition("it runs", lambda: log.read_text().split())
    os.kill(int(first[0]), signal.SIGKILL)
    processes.await_condition("it runs again", lambda: len(log.read_text().split()) == 2)
    popen.send_signal(signal.SIGTERM)
    status, said = ended(popen)
    assert status == 143
    assert "died of signal 9: starting it again" in said


@pytest.mark.parametrize("flags", ["", ":ssl", ":ip-in=127.0.0.1", ":ipv6"])
def test_ports_are_held_for_the_program(log: Path, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are open whatever becomes of the program, and it is told which descriptor each is."""
    ip = "::1" if "ipv6" in flags else "127.0.0.1"
    (port,) = processes.free_ports(processes.LOOPBACK, ip, 1)
    monkeypatch.setenv("PROXY_CONFIG_HTTP_SERVER_PORTS", f"{port}{flags} 70000 9:quic")
    popen = supervised('printf "%s" "$PROXY_CONFIG_HTTP_SERVER_PORTS" > "$0.ports"; exec sleep 60', log)
    first = processes.await_condition("it runs", lambda: log.read_text().split())
    said = log.with_name("starts.ports")
    processes.await_condition("it has said", lambda: said.exists() and said.read_text())
    found = re.fullmatch(rf"{port}{re.escape(flags)}:fd=(\d+) 70000 9:quic", said.read_text())
    assert found is not None, said.read_text()
    assert os.readlink(f"/proc/{first[0]}/fd/{found.group(1)}").startswith("socket:")
    assert processes.is_listening(processes.LOOPBACK, ip, port)
    popen.send_signal(signal.SIGTERM)
    assert ended(popen)[0] == 143
    assert not processes.is_listening(processes.LOOPBACK, ip, port)


def test_a_port_that_is_taken_is_left_to_the_program(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with processes.listen(processes.LOOPBACK, "127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PROXY_CONFIG_HTTP_SERVER_PORTS", f"{port}:ip-in=127.0.0.1")
        assert ended(supervised('[ "$PROXY_CONFIG_HTTP_SERVER_PORTS" = ' + f'"{port}:ip-in=127.0.0.1" ]', log)) == (0, "")


def test_a_program_that_is_missing_is_said() -> None:
    done = subprocess.run([*SUPERVISOR, "/nonexistent"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 2 and "cannot start /nonexistent: No such file or directory" in done.stderr
