"""The C core's pure files, vhost.c, policies.c and request.c, called from Python.

Built with checks that trap: a shift, an overflow or an index out of bounds ends the process, which no test can overlook.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Final

import cffi

from atsk8s.model.normalise import Host, RequestFault
from deploy import prerequisites

ATSK_OK: Final = 0
_PLUGIN_C: Final = prerequisites.CHECKOUT / "plugin_c"
_SOURCES: Final = ("blob/vhost.c", "blob/policies.c", "table/request.c")
_FLAGS: Final = ("-std=c11", "-O1", "-g", "-fPIC", "-shared", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")

# Structs by value across the boundary are wrapped: their layout is C's business.
_GLUE: Final = """
#include <string.h>
#include "table/request.h"
#include "blob/vhost.h"
int reader_validate(const uint8_t *blob, size_t len) { return atsk_blob_validate((struct atsk_span){blob, len}); }
int reader_match(const uint8_t *blob, size_t len, const char *path, size_t path_len, uint32_t *rule) {
  return atsk_blob_match((struct atsk_span){blob, len}, (struct atsk_str){path, path_len}, rule);
}
int reader_host(const char *authority, size_t len, char *out, uint16_t *out_len, uint16_t *port) {
  struct atsk_host host;
  int fault = atsk_host_normalise((struct atsk_str){authority, len}, &host);
  if (fault == 0) { memcpy(out, host.bytes, host.len); *out_len = host.len; *port = host.port; }
  return fault;
}
int reader_path(const char *path, size_t len, char *room, char *out, size_t *out_len) {
  struct atsk_str normal;
  int fault = atsk_path_normalise((struct atsk_str){path, len}, room, &normal);
  if (fault == 0) { memcpy(out, normal.ptr, normal.len); *out_len = normal.len; }
  return fault;
}
"""
_DECLARATIONS: Final = """
int reader_validate(const uint8_t *blob, size_t len);
int reader_match(const uint8_t *blob, size_t len, const char *path, size_t path_len, uint32_t *rule);
int reader_host(const char *authority, size_t len, char *out, uint16_t *out_len, uint16_t *port);
int reader_path(const char *path, size_t len, char *room, char *out, size_t *out_len);
"""
_PATH_MAX: Final = 8192
_HOST_MAX: Final = 253


def build() -> Path:
    """The shared object, in the cache directory under a hash of what it is made of.

    Raises:
        subprocess.CalledProcessError: the compiler failed.
    """
    parts = [*(_PLUGIN_C / name for name in _SOURCES), *sorted(_PLUGIN_C.rglob("*.h"))]
    digest = hashlib.sha256(b"\0".join([_GLUE.encode(), *(part.read_bytes() for part in parts)])).hexdigest()[:16]
    directory = prerequisites.cache_dir() / "tests/creader"
    found = directory / f"{digest}.so"
    if not found.exists():
        directory.mkdir(parents=True, exist_ok=True)
        fresh = directory / f"{digest}.{os.getpid()}"
        sources = [str(_PLUGIN_C / name) for name in _SOURCES]
        command = ["cc", *_FLAGS, "-I", str(_PLUGIN_C), "-o", str(fresh), *sources, "-x", "c", "-"]
        subprocess.run(command, input=_GLUE, text=True, check=True, capture_output=True)
        for old in directory.glob("*.so"):
            old.unlink(missing_ok=True)
        fresh.rename(found)
    return found


class CReader:
    """The functions, with Python's values."""

    def __init__(self, library: Path) -> None:
        self._ffi = cffi.FFI()
        self._ffi.cdef(_DECLARATIONS)
        self._lib = self._ffi.dlopen(str(library))

    def validate(self, blob: bytes) -> int:
        """enum atsk_status of bytes that are 8-aligned."""
        return int(self._lib.reader_validate(self._aligned(blob), len(blob)))

    def match(self, blob: bytes, path: bytes) -> int | None:
        """The rule's index, or None for a miss; `blob` must be valid."""
        rule = self._ffi.new("uint32_t *")
        status = self._lib.reader_match(self._aligned(blob), len(blob), self._exact(path), len(path), rule)
        return int(rule[0]) if status == ATSK_OK else None

    def normalise_host(self, authority: bytes) -> Host | RequestFault:
        out, size, port = self._ffi.new("char[]", _HOST_MAX), self._ffi.new("uint16_t *"), self._ffi.new("uint16_t *")
        fault = self._lib.reader_host(self._exact(authority), len(authority), out, size, port)
        return RequestFault(fault) if fault else Host(self._ffi.buffer(out, size[0])[:], port[0])

    def normalise_path(self, path: bytes) -> bytes | RequestFault:
        room, out, size = self._ffi.new("char[]", _PATH_MAX), self._ffi.new("char[]", _PATH_MAX), self._ffi.new("size_t *")
        fault = self._lib.reader_path(self._exact(path), len(path), room, out, size)
        return RequestFault(fault) if fault else self._ffi.buffer(out, size[0])[:]

    def _aligned(self, data: bytes) -> cffi.FFI.CData:
        words = self._ffi.new("uint64_t[]", len(data) // 8 + 1)
        self._ffi.memmove(words, data, len(data))
        self._words = words  # alive until the next call
        return self._ffi.cast("const uint8_t *", words)

    def _exact(self, data: bytes) -> cffi.FFI.CData:
        """Bytes without a NUL behind them."""
        self._bytes = self._ffi.new("char[]", max(1, len(data)))
        self._ffi.memmove(self._bytes, data, len(data))
        return self._bytes
