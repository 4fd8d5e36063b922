"""Take out each safeguard of the write-back protocol, and see that a test fails.

`python tests/benchmarks/safeguards.py` works on a copy of the repository's files, and prints a row
for each: which test noticed, or that none did.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Safeguard:
    """A safeguard, and how the code reads without it.

    Attributes:
        name: What it is.
        path: The file, from the package on.
        code: Its code.
        without: The code in its place.
        tests: Which tests are to notice.
    """

    name: str
    path: str
    code: str
    without: str
    tests: str = "tests/test_protocol.py"


SAFEGUARDS = [
    Safeguard(
        name="ledger CAS",
        path="store/ledger.py",
        code="        return self.store.log_once(self.run_id, key, run_id)",
        without="        self.store.log_once(self.run_id, key, run_id)\n        return run_id",
    ),
    Safeguard(
        name="SCHEDULED last",
        path="store/publish.py",
        code=(
            "    ledger.store.log_batch(stands, params=item.params, metrics=item.metrics, "
            'at_ms=start_ms)\n    ledger.store.set_status(stands, "SCHEDULED")\n'
        ),
        without=(
            '    ledger.store.set_status(stands, "SCHEDULED")\n    ledger.store.log_batch('
            "stands, params=item.params, metrics=item.metrics, at_ms=start_ms)\n"
        ),
    ),
    Safeguard(
        name="read-back of a claim",
        path="store/queue.py",
        code="    if record.params.get(names.CLAIM) != token:\n        return None\n",
        without="",
    ),
    Safeguard(
        name="retry wrapper",
        path="store/patience.py",
        code="            if answer is not None and _is_answer(answer, attempt):",
        without="            if answer is not None:",
        tests="tests/test_patience.py",
    ),
    Safeguard(
        name="launcher",
        path="execution/launcher.py",
        code="        left_s = sent_at + limit_s - clock()",
        without="        left_s = 1e9",
        tests="tests/test_launcher.py",
    ),
    Safeguard(
        name="clean-up",
        path="store/sweep.py",
        code="        if is_draft(record):\n            finish_draft(ledger, record)\n        elif",
        without="        if",
    ),
    Safeguard(
        name="lease from first sight",
        path="store/queue.py",
        code='            last, since = self._seen.get(record.run_id, ("", now))',
        without="            last, since = self._seen.get(record.run_id, (mark, now - 1e9))",
    ),
]


def noticed(safeguard: Safeguard) -> str:
    """The first test that fails without it; empty if none does."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("mlflow_meta", "tests", "pyproject.toml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(scratch, name), ignore=_no_caches)
            else:
                shutil.copy(source, scratch)
        path = Path(scratch, "mlflow_meta", safeguard.path)
        code = path.read_text()
        assert code.count(safeguard.code) == 1, f"{safeguard.name} reads otherwise by now"
        path.write_text(code.replace(safeguard.code, safeguard.without))
        env = {**os.environ, "PYTHONPATH": scratch, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, safeguard.tests], cwd=scratch, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode == 0:
        return ""
    assert failed, done.stdout[-2000:]
    return failed[0].removeprefix("FAILED ").partition(" - ")[0]


def _no_caches(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


def main() -> None:
    """Print which test noticed the lack of each safeguard."""
    n = 0
    for safeguard in SAFEGUARDS:
        test = noticed(safeguard)
        n += bool(test)
        print(f"{safeguard.name:25} {test or 'NOT NOTICED'}", flush=True)
    print(f"{n} of {len(SAFEGUARDS)} are noticed.")
    sys.exit(n < len(SAFEGUARDS))


if __name__ == "__main__":
    main()
