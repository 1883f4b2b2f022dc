#!/opt/atsk8s/venv/bin/python3 -I
"""HEALTHCHECK of the image: 0 when the health path answers 200 on the first plain HTTP port, else 1 with the reason.

It asks the real port because Traffic Server keeps running without one that was taken.  Kubernetes ignores HEALTHCHECK:
its probes ask the same path.
"""

from __future__ import annotations

import http.client
import sys
import urllib.parse
from pathlib import Path

FILES = (Path("/run/ats/health"), Path("/tmp/ats/health"))  # written by the entry point
TIMEOUT_S = 2.0


def read_url() -> str:
    """Return the URL to ask, "" if no port speaks plain HTTP.

    Raises:
        FileNotFoundError: the entry point has not come so far.
    """
    for file in FILES:
        if file.exists():
            return file.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{FILES[0]}: not written yet")


def main() -> int:
    try:
        url = read_url()
        if not url:
            print("no plain HTTP port to ask")
            return 0
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        connection.request("GET", parts.path)
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"unhealthy: {error}")
        return 1
    print(f"{url}: {status}")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
