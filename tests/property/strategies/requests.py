"""Bytes of requests: hosts and paths as clients send them."""

from __future__ import annotations

from hypothesis import strategies as st

# Pieces rather than bytes: random bytes are malformed nearly always.
_PATH_PIECES = (
    b"/", b"/", b"//", b".", b"..", b"a", b"bc", b"%2e", b"%2E", b"%2e%2e", b"%2f", b"%2F", b"%5c", b"%7E", b"%41", b"%c3%A9",
    b"~", b"%", b"%0", b"%00", b"%zz", b"\x00", b" ", b"\x7f", b"\xc3\xa9", b"\\", b";x=1", b"%25", b"%20",
)  # fmt: skip
raw_paths = st.one_of(
    st.lists(st.sampled_from(_PATH_PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces)),
    st.lists(st.sampled_from(_PATH_PIECES[:18]), max_size=12).map(lambda pieces: b"/" + b"".join(pieces)),
    st.binary(max_size=12),
    st.builds(lambda n, piece: (b"/" + piece) * n, st.integers(8180 // 3, 8200), st.sampled_from((b"", b"ab", b"."))),
)
_HOST_PIECES = (
    b"a", b"Example", b".",
    b"..", b"-", b"_", b":", b":80", b":65535", b":65536", b":080", b"[", b"]", b"::1", b"[::1]", b"[FE80::1]",
    b"1.2.3.4", b"@", b" ", b"\x00", b"x" * 62, b"y" * 63, b"z" * 64, b"%2e", b"\xc3", b"*",
)  # fmt: skip
raw_authorities = st.one_of(st.lists(st.sampled_from(_HOST_PIECES), max_size=8).map(b"".join), st.binary(max_size=8))
