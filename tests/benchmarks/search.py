"""How fast is the exact search, and how often is the best found? Beside `predict`, and proofs.

    python tests/benchmarks/search.py scan exact start tables growth --repeats 5 --seconds 60

scan:   a billion configurations, one by one, beside a library's `predict` and the machine's peak
exact:  the 100 best of spaces of 10^9 to 2^60 configurations, with the proof
start:  the same from a new process, with and without compiled code that is kept
tables: models of 15 tables of real trainings (../shared/quality): proofs, and how often the engines
        that learn a policy find the same
growth: how the time grows with parameters, levels, trees and k; a figure in build/

Every part has a process of its own, whose peak of memory (with what it imports, fits and compares
itself to) is printed last. The exit code is 1 if anything that is asked was missed. --small runs
through in a minute; what it measures says nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module

from search_rows import HEADER, Options, Row, say

PARTS = ("scan", "exact", "start", "tables", "growth")
MOST_MB = 1000.0


def measure(part: str, options: Options) -> None:
    """Print the rows of one part as JSON; in a process of its own."""
    for row in import_module(f"search_{part}").rows(options):
        print(json.dumps(asdict(row)), flush=True)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    mb = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    row = Row(what=f"{part}: peak memory", value=mb, seen=f"{mb:.0f} MB", most=MOST_MB, unit=" MB")
    print(json.dumps(asdict(row)), flush=True)


def measured(part: str, argv: list[str]) -> Iterator[Row]:
    """The rows of a part, as they come."""
    say(f"== {part}")
    command = [sys.executable, __file__, "measure", part, *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield Row(**json.loads(line))
    if process.returncode:
        seen = f"exit code {process.returncode}"
        yield Row(what=f"{part}: runs through", value=0.0, seen=seen, least=1.0)


def main() -> int:
    """Measure, and print the table; 1 if something that is asked was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none for all")
    parser.add_argument("--repeats", type=int, default=5, help="of what is timed; medians are told")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the hardest searches")
    parser.add_argument("--small", action="store_true", help="run through, with small sizes")
    args = parser.parse_args()
    if args.parts[:1] == ["measure"]:
        options = Options(repeats=args.repeats, seconds=args.seconds, small=args.small)
        measure(args.parts[1], options)
        return 0
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))} (of {', '.join(PARTS)})")
    argv = ["--repeats", str(args.repeats), "--seconds", str(args.seconds)]
    argv += ["--small"] * args.small
    print(HEADER, flush=True)
    n_missed = 0
    for part in args.parts or PARTS:
        for row in measured(part, argv):
            print(row, flush=True)
            n_missed += not row.met
    print(f"missed: {n_missed}")
    return 1 if n_missed else 0


if __name__ == "__main__":
    sys.exit(main())
