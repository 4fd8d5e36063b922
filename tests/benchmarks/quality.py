"""How good is what mlflow-meta proposes and predicts, beside its peers in the same run?

    pip install 'mlflow-meta[bench]'
    python tests/benchmarks/quality.py transfer --targets 3 --seeds 3
    python tests/benchmarks/quality.py single --methods ours tpe --out rows.parquet
    python tests/benchmarks/quality.py accuracy --scenarios analytic sklearn

transfer   P1: 200 runs on each other task, none on the target; 5 batches of 10
single     P2: 30 random runs on the target, nothing else; 5 batches of 10
accuracy   rank correlation on held-out configurations, within a task and across tasks
coverage   what the 80% and the 90% intervals cover, on later runs of the same task
refusal    shuffled values are refused, real ones are not
time       proposals beside GPSampler's; training on many runs

The scenarios hpobench, hpolib and nasbench201 are full tables (see quality_tables.py); analytic
and sklearn are our own and need no package (quality_own.py), but half of a history is Optuna's.
Progress goes to stderr, tables to stdout; the exit code is 1 if something that is needed was
missed. With --out an interrupted run is taken up where it was; with --cache histories are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each method, ours and the peers

import pandas as pd
import quality_models as models
import quality_proposals as proposals
import quality_time
from quality_methods import METHODS
from quality_report import Need, Rows
from quality_tables import SCENARIOS, TABLES, scenario

Report = Callable[[pd.DataFrame], tuple[str, list[Need]]]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "part", choices=["transfer", "single", "accuracy", "coverage", "refusal", "time"]
    )
    top.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(TABLES))
    top.add_argument("--targets", type=int, default=3, help="tasks of each scenario, at most 6")
    top.add_argument("--seeds", type=int, default=3)
    top.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    top.add_argument("--runs", nargs="+", type=int, help="runs to learn from, or to train on")
    top.add_argument("--repeats", type=int, default=models.N_REFUSALS, help="data sets of refusal")
    top.add_argument("--out", type=Path, help="parquet file of the rows; what it has is kept")
    top.add_argument("--cache", type=Path, help="folder of the histories; else a temporary one")
    return top


def measure(args: argparse.Namespace, folder: Path) -> list[tuple[str, list[Need]]]:
    """The reports of one part."""
    rows = Rows(args.out)
    if args.part == "time":
        sizes = args.runs or list(quality_time.TRAININGS)
        return [quality_time.report(rows.measure(quality_time.jobs(sizes)))]
    scenarios = [scenario(name) for name in args.scenarios]
    if args.part in proposals.NEEDED:
        wanted = proposals.jobs(
            args.part, scenarios, args.methods, args.targets, args.seeds, folder
        )
        return [proposals.report(args.part, rows.measure(wanted))]
    if args.part == "refusal":
        wanted = models.refusal_jobs(scenarios, args.targets, args.repeats)
        return [models.refusal_report(rows.measure(wanted))]
    sizes = args.runs or models.SIZES
    within = rows.measure(models.within_jobs(scenarios, args.targets, args.seeds, sizes))
    if args.part == "coverage":
        return [models.coverage_report(within)]
    wanted = models.across_jobs(scenarios, args.targets, args.seeds, folder)
    return [models.accuracy_report(within), models.accuracy_report(rows.measure(wanted))]


def main() -> int:
    """Measure, and print the tables; 1 if something that is needed was missed."""
    args = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reports = measure(args, folder)
    for text, needs in reports:
        print(text, *needs, sep="\n", end="\n\n")
    missed = [need.what for _, needs in reports for need in needs if not need.met]
    print(f"missed: {'; '.join(missed) or 'nothing'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
