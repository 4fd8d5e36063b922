"""Programs that play what only a container image has: `stand_ins.py postgres|storage|supercronic`.

Each takes its image's environment and arguments. Postgres is Debian's, the S3 store is moto's.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

JOB = re.compile(r"(?P<schedule>(?:[\d*/,-]+\s+){5})(?P<command>.+)")


def postgres() -> None:
    """The image `postgres`: a new database of a user with a password."""
    name, database = os.environ["POSTGRES_USER"], os.environ["POSTGRES_DB"]
    folder = tempfile.mkdtemp(prefix="pg")
    password = Path(folder, "password")
    password.write_text(os.environ["POSTGRES_PASSWORD"])
    as_user = []
    if os.geteuid() == 0:  # Postgres refuses to run as root
        for path in (folder, password):
            shutil.chown(path, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    make = ["initdb", "-D", f"{folder}/data", "-U", name, "-A", "scram-sha-256", "--pwfile"]
    subprocess.run([*as_user, *make, str(password)], check=True, cwd=folder)
    alone = ["postgres", "--single", "-D", f"{folder}/data", "postgres"]
    statement = f"CREATE DATABASE {database};\n".encode()
    subprocess.run([*as_user, *alone], check=True, cwd=folder, input=statement)
    settings = ["-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = [*as_user, "postgres", "-D", f"{folder}/data", *settings]
    running = subprocess.Popen(server, cwd=folder)
    signal.signal(signal.SIGTERM, lambda *_: running.send_signal(signal.SIGINT))
    code = running.wait()
    shutil.rmtree(folder)
    sys.exit(code)


def storage() -> None:
    """The image of RustFS: an S3 store, open to who has its key, and to no signed address."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    s3 = DomainDispatcherApplication(create_backend_app)
    key = f"Credential={os.environ['RUSTFS_ACCESS_KEY']}/"

    def answer(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/health":
            start("200 OK", [])
            return [b""]
        if key not in environ.get("HTTP_AUTHORIZATION", ""):
            start("403 Forbidden", [])
            return [b""]
        return s3(environ, start)

    host, _, port = os.environ["RUSTFS_ADDRESS"].rpartition(":")
    run_simple(host, int(port), answer, threaded=True)


def supercronic() -> None:
    """supercronic, but each line of the crontab is run once, at once, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-passthrough-logs", action="store_true")
    parser.add_argument("-prometheus-listen-address", required=True)
    parser.add_argument("crontab", type=Path)
    args = parser.parse_args(sys.argv[2:])
    host, _, port = args.prometheus_listen_address.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), _Metrics)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in args.crontab.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            job = JOB.fullmatch(line)
            assert job is not None, line
            code = subprocess.run(["/bin/sh", "-c", job["command"]], check=False).returncode
            print(f"ended with {code}: {job['command']}", flush=True)
    print("all lines were run", flush=True)
    threading.Event().wait()


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()


if __name__ == "__main__":
    {"postgres": postgres, "storage": storage, "supercronic": supercronic}[sys.argv[1]]()
