#!/usr/bin/env python3
"""Whether a server answers: exit code 0 if it does, for a container's health check.

healthy.py [URL]    a server of this container; by default the tracking server
"""

import os
import sys
import urllib.request

TIMEOUT_S = 8.0


def main() -> None:
    """Ask; a server that does not answer, or not with 200, ends in an error."""
    handlers = []
    if len(sys.argv) > 1:
        url = sys.argv[1]
        # It is in this container: no proxy on the way out has to do with it.
        handlers.append(urllib.request.ProxyHandler({}))
    else:
        url = f"{os.environ.get('MLFLOW_TRACKING_URI', '').rstrip('/')}/health"
        if not url.startswith("http"):
            return  # a database: there is no server to ask
    try:
        urllib.request.build_opener(*handlers).open(url, timeout=TIMEOUT_S).close()
    except OSError as error:
        sys.exit(f"{url} does not answer: {error}")


if __name__ == "__main__":
    main()
