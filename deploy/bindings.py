"""Write the C that joins Python and the core, with cffi: run by the virtual environment's python, which has cffi.

Usage: bindings.py PLUGIN_C_DIR OUT_DIR

OUT_DIR/embedding.c goes into libatsk8s.so: it starts the controller inside traffic_server.  OUT_DIR/extension.c makes the same
functions an importable module, for tests and benchmarks without Traffic Server.  bridge.h is both the C header and
the Python declaration, one source with two readers; so is enum atsk_status.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cffi import FFI

MODULE = "_atsk8s"
PRELUDE = """
#include <stddef.h>
#include <stdint.h>
#include "base/atsk_base.h"
#include "controller/bridge.h"
"""
# Runs once, inside traffic_server, before the first callback: it attaches atsk_controller_main.
START = "import atsk8s.bridge.callbacks\n"


def write(plugin_c: Path, out: Path) -> None:
    """Write both files; bytes change only with bridge.h, bridge_callbacks.h or cffi."""
    bridge = (plugin_c / "controller/bridge.h").read_text(encoding="utf-8")
    callbacks = (plugin_c / "controller/bridge_callbacks.h").read_text(encoding="utf-8")
    statuses = re.search(
        r"^enum atsk_status \{.*?^\};", (plugin_c / "base/atsk_base.h").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    if statuses is None:
        raise SystemExit("atsk_base.h: no enum atsk_status, which Python reads as lib.ATSK_*")
    bridge = f"{statuses[0]}\n{bridge}"

    embedding = FFI()
    embedding.cdef(bridge)
    embedding.embedding_api(callbacks)
    embedding.embedding_init_code(START)
    embedding.set_source(MODULE, PRELUDE)
    embedding.emit_c_code(str(out / "embedding.c"))

    extension = FFI()
    extension.cdef(bridge)
    extension.cdef(callbacks)
    extension.set_source(MODULE, PRELUDE)
    extension.emit_c_code(str(out / "extension.c"))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
