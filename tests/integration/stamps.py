"""A training that leaves traces: who ran when. Run with `python -I -S`, so that it starts at once.

`stamps.py FOLDER SECONDS NAME [stubborn]`: a line `run pid name` in FOLDER/executions, and then the
time in FOLDER/RUN.stamps every 20 ms. If stubborn, it ignores SIGTERM, and has a child which does
the same.
"""

import os
import signal
import sys
import time


def main() -> None:
    folder, seconds, name = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    run_id = os.environ["MLFLOW_RUN_ID"]
    log = os.open(f"{folder}/executions", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    stamps = os.open(f"{folder}/{run_id}.stamps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.monotonic() + seconds
    os.write(log, f"{run_id} {os.getpid()} {name}\n".encode())
    if sys.argv[4:5] == ["stubborn"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
    while time.monotonic() < end:
        os.write(stamps, f"{time.monotonic()}\n".encode())
        time.sleep(0.02)


if __name__ == "__main__":
    main()
