"""Hold every packet of a netfilter queue for a while, then accept it, or drop a share: latency and loss without netem.

Run inside a PodNet by path: `nfdelay.py QUEUE DELAY_MS [LOSS [SEED]]`; prints "ready" once it holds the queue.
Pure Python over AF_NETLINK (linux/netfilter/nfnetlink_queue.h).  Not every kernel has tc's netem.
Only the standard library: it is run by path, isolated.
"""

import collections
import random
import select
import socket
import struct
import sys
import time

NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_NO_ENOBUFS = 5
NLM_F_REQUEST = 1
NLM_F_ACK = 4
NFNL_SUBSYS_QUEUE = 3
NFQNL_MSG_PACKET, NFQNL_MSG_VERDICT, NFQNL_MSG_CONFIG = 0, 1, 2
NFQA_CFG_CMD, NFQA_CFG_PARAMS, NFQA_CFG_QUEUE_MAXLEN, NFQA_CFG_MASK, NFQA_CFG_FLAGS = 1, 2, 3, 4, 5
NFQA_PACKET_HDR, NFQA_VERDICT_HDR = 1, 2
NFQNL_CFG_CMD_BIND = 1
NFQNL_COPY_META = 1
NFQA_CFG_F_GSO = 4
NF_DROP, NF_ACCEPT = 0, 1
MAX_QUEUE_PACKETS = 65535


def attribute(kind: int, value: bytes) -> bytes:
    """Return one netlink attribute, padded to four bytes."""
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + b"\0" * (-size % 4)


def message(kind: int, queue: int, body: bytes, flags: int = NLM_F_REQUEST) -> bytes:
    """Return one nfnetlink message for `queue`."""
    payload = struct.pack("=BBH", 0, 0, socket.htons(queue)) + body
    return struct.pack("=IHHII", 16 + len(payload), (NFNL_SUBSYS_QUEUE << 8) | kind, flags, 0, 0) + payload


def bound_socket(queue: int) -> socket.socket:
    """Return a socket that receives the packets of `queue`.  Raises OSError: none such, or taken."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.bind((0, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)
    for body in (
        attribute(NFQA_CFG_CMD, struct.pack("!BBH", NFQNL_CFG_CMD_BIND, 0, socket.AF_INET)),
        attribute(NFQA_CFG_PARAMS, struct.pack("!IB", 0, NFQNL_COPY_META)),  # a verdict needs no payload
        attribute(NFQA_CFG_QUEUE_MAXLEN, struct.pack("!I", MAX_QUEUE_PACKETS)),
        attribute(NFQA_CFG_MASK, struct.pack("!I", NFQA_CFG_F_GSO)) + attribute(NFQA_CFG_FLAGS, struct.pack("!I", NFQA_CFG_F_GSO)),
    ):
        sock.send(message(NFQNL_MSG_CONFIG, queue, body, NLM_F_REQUEST | NLM_F_ACK))
        (error,) = struct.unpack_from("=i", sock.recv(65536), 16)
        if error:
            raise OSError(-error, f"netfilter queue {queue}")
    return sock


def packet_ids(data: bytes) -> list[bytes]:
    """Return the id (four bytes, network order) of each packet announced in one read from the socket."""
    ids = []
    offset = 0
    while offset + 16 <= len(data):
        size, kind = struct.unpack_from("=IH", data, offset)
        if kind == (NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET:
            at = offset + 20
            while at < offset + size:
                attribute_size, attribute_kind = struct.unpack_from("=HH", data, at)
                if attribute_kind == NFQA_PACKET_HDR:
                    ids.append(data[at + 4 : at + 8])
                    break
                at += (attribute_size + 3) & ~3
        offset += (size + 3) & ~3
    return ids


def hold(sock: socket.socket, queue: int, delay_s: float, loss: float, dice: random.Random) -> None:
    """Hold each packet for `delay_s`, then accept it, or drop it with probability `loss`.  Never returns."""
    held: collections.deque[tuple[float, bytes]] = collections.deque()
    while True:
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, packet_id = held.popleft()
            verdict = NF_DROP if dice.random() < loss else NF_ACCEPT
            verdict_attribute = attribute(NFQA_VERDICT_HDR, struct.pack("!I", verdict) + packet_id)
            sock.send(message(NFQNL_MSG_VERDICT, queue, verdict_attribute))
            now = time.monotonic()
        readable, _, _ = select.select([sock], [], [], held[0][0] - now if held else None)
        if readable:
            due = time.monotonic() + delay_s
            held.extend((due, packet_id) for packet_id in packet_ids(sock.recv(1 << 20)))


if __name__ == "__main__":
    queue_number = int(sys.argv[1])
    queue_socket = bound_socket(queue_number)
    print("ready", flush=True)
    hold(
        queue_socket,
        queue_number,
        float(sys.argv[2]) / 1000,
        float(sys.argv[3]) if len(sys.argv) > 3 else 0.0,
        random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 0),
    )
