"""A door into the embedded Python of a server under test: a thread that runs the Python text it is handed over a FIFO.

A copy of the build's venv gets one module more, which site imports at the interpreter's start by a .pth file.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from deploy.compile import SITE_PACKAGES, Build

# Reads the FIFO with the GIL released, and imports nothing before it is used: cffi's start does not like its interpreter touched.
_MODULE = """
import _thread, posix
def serve():
    while True:
        fd = posix.open({fifo!r}, posix.O_RDONLY)
        text = b""
        while part := posix.read(fd, 65536):
            text += part
        posix.close(fd)
        try:
            exec(compile(text.decode(), "hostile", "exec"), {{}})
        except BaseException as error:
            posix.write(2, b"hostile: " + repr(error).encode() + b"\\n")
_thread.start_new_thread(serve, ())
"""


class Door:
    """The venv of one server, with the door in it."""

    def __init__(self, build: Build, directory: Path) -> None:
        """Copy the venv to `directory`/venv, where Traffic Server's user can read it."""
        self.venv, self._fifo = directory / "venv", directory / "door"
        os.mkfifo(self._fifo)
        self._fifo.chmod(0o644)
        shutil.copytree(build.venv, self.venv, symlinks=True)
        for name, text in (("hostile.py", _MODULE.format(fifo=str(self._fifo))), ("hostile.pth", "import hostile\n")):
            path = self.venv / SITE_PACKAGES / name
            path.write_text(text)
            path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)

    def run(self, text: str) -> None:
        """Let the server's Python run `text`, in a thread of its own; returns at once."""
        with self._fifo.open("w") as door:
            door.write(text)
