"""The first process of a PodNet's namespaces: hands out sockets, reaps orphans, and is the namespace's life line.

Run by podnet.py with the number of an inherited Unix socket.  Each byte read from it names a kind of socket; the answer
carries one made here, inside the namespace (SCM_RIGHTS of unix(7)).  A socket belongs to the network namespace of
the process that made it, whoever uses it later; so the test process needs neither setns(2) nor privilege.  When the
other end is gone, however its owner died, this process ends and the kernel kills everything else in its PID namespace.
Only the standard library: it is run by path, isolated.
"""

import signal
import socket
import sys

KINDS = {
    b"4": (socket.AF_INET, socket.SOCK_STREAM),
    b"6": (socket.AF_INET6, socket.SOCK_STREAM),
    b"u": (socket.AF_INET, socket.SOCK_DGRAM),
    b"v": (socket.AF_INET6, socket.SOCK_DGRAM),
}


def serve(control: socket.socket) -> None:
    """Answer requests until the other end closes."""
    control.sendall(b"+")
    while request := control.recv(1):
        try:
            made = socket.socket(*KINDS[request])
        except OSError as error:
            control.sendall(f"{error.errno}\n".encode())
            continue
        with made:
            socket.send_fds(control, [b"+"], [made.fileno()])


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then reaps what is re-parented to us
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the test run is not ours to act upon
    serve(socket.socket(fileno=int(sys.argv[1])))
