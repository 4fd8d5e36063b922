#!/usr/bin/env python3
"""Whether a server answers: exit code 0 if it does, for a container's health check.

healthy.py [URL]    by default the tracking server's /health
"""

import os
import sys
import urllib.request

TIMEOUT_S = 8.0


def main() -> None:
    """Ask; a server that does not answer, or not with 200, ends in an error."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    if len(sys.argv) == 1 and not tracking.startswith("http"):
        return  # a database: there is no server to ask
    url = sys.argv[1] if len(sys.argv) > 1 else f"{tracking.rstrip('/')}/health"
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_S).close()
    except OSError as error:
        sys.exit(f"{url} does not answer: {error}")


if __name__ == "__main__":
    main()
