"""What a fuzz target in Python consists of, and how its input is mutated where blind bytes would get nowhere.

A target is one file, fuzz_NAME.py, with a `TARGET` and a corpus in corpus/NAME: nothing lists them.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MESSAGE_CHARS_MAX = 1500  # of one verdict or problem: a line of a log

MutateBytes = Callable[[bytes, int], bytes]  # the fuzzer's own mutation: input, most bytes of the output
Mutate = Callable[[bytes, random.Random, MutateBytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser under test.

    Args:
        check: runs one input; raises for a defect and for nothing else.
        words: what the fuzzer may put in: names of fields, values that mean something.
        mutate: a mutation that knows the input's shape; the fuzzer's own is used for every third input all the same.
        size_max: longest input [bytes].
    """

    check: Callable[[bytes], None]
    words: tuple[str, ...] = ()
    mutate: Mutate | None = None
    size_max: int = 16 * 1024


class _Raising(logging.Handler):
    """An error in the log is a fault of ours that something caught: told at once, with its cause.

    But whether a certificate is strong enough is a question to OpenSSL in C alone: its security level is the host's.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "refused by the core" and getattr(record, "item", "") == "PutCertificate":
            return
        cause = record.exc_info[1] if record.exc_info else None
        raise AssertionError(f"logged as an error: {record.getMessage()}") from cause


@contextlib.contextmanager
def no_errors_logged() -> Iterator[None]:
    """While the block runs, what is logged as an error raises AssertionError; lesser lines go nowhere."""
    log = logging.getLogger("atsk8s")
    before = log.handlers[:], log.propagate, log.level
    log.handlers[:], log.propagate = [_Raising()], False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.handlers[:], log.propagate = before[0], before[1]
        log.setLevel(before[2])


def check_message(message: str) -> None:
    """Raise AssertionError unless the message is one bounded line."""
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert len(message) < MESSAGE_CHARS_MAX, f"{len(message)} characters: {message[:200]!r}"
