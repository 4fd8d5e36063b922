"""How much do suggestions for several objectives dominate? On HPOLib, beside NSGA-II and TPE.

    python tests/benchmarks/pareto.py

Objectives: `val_loss`, `model_size` and `train_time`, of 62,208 networks that were really trained
on each of four data sets. Volume: that which 50 configurations dominate, each objective on the
scale of its logarithm, as a share of what the whole table dominates. It is measured within two
references: the worst of the table's Pareto front (the nadir point, as is usual), and the worst of
the table, where nearly all of the volume is easily had. Ours is measured with nothing known before
("cold", five batches of ten), and with 200 random runs on each other data set ("ours").

Needs the extra `[bench]`; nothing is downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import click
import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from quality_report import table
from quality_tables import from_table, recorded, scenario

from mlflow_meta.columns import frame_of
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.models import ZOO
from mlflow_meta.pareto import fronts, hypervolume
from mlflow_meta.proposal import spread_out, tried_on
from mlflow_meta.proposal.front import choose_front
from mlflow_meta.space import Categorical
from mlflow_meta.trials import Config

Matrix = NDArray[np.float64]
OBJECTIVES = ("val_loss", "model_size", "train_time")
N, BATCH, N_OTHER, LEAST = 50, 10, 200, 1.1
Measured = Callable[[str, list[Config]], Matrix]


def tables() -> dict[str, Matrix]:
    """Data set -> logarithms in [0, 1] of all objectives `(m, 3)`."""
    by_name = [recorded("hpolib", name) for name in OBJECTIVES]
    values = {}
    for task in by_name[0]:
        logs = np.log(np.column_stack([table[task] for table in by_name]))
        values[task] = (logs - logs.min(axis=0)) / np.ptp(logs, axis=0)
    return values


def _first_front(values: Matrix) -> Matrix:
    """The first front, by parts: all at once would be a matrix of all pairs."""
    parts = [part[fronts(part) == 1] for part in np.array_split(values, len(values) // 500)]
    best = np.concatenate(parts)
    return best if len(best) == len(values) or len(best) < 3000 else _first_front(best)


def ours(history: pd.DataFrame, task: str, seed: int, measured: Measured) -> Matrix:
    """Five batches of ten; `history` has a column for each objective."""
    space, rng = scenario("hpolib").space, np.random.default_rng([2, seed])
    runs = history
    for _ in range(N // BATCH):
        tried = tried_on(runs, task)
        try:
            told = [runs.assign(value=runs[name]) for name in OBJECTIVES]
            models = [ZOO["transfer"]() for _ in OBJECTIVES]
            for model, known in zip(models, told, strict=True):
                model.learn(known, space)
            configs = choose_front(models, space, told, task=task, n=BATCH, tried=tried, rng=rng)
        except NothingToLearn:
            configs = spread_out(space, BATCH, tried=tried, rng=rng)
        new = as_runs(task, configs, measured)
        runs = new if runs.empty else pd.concat([runs, new], ignore_index=True)
    return runs.loc[runs["task"] == task, list(OBJECTIVES)].to_numpy(float)


def as_runs(task: str, configs: list[Config], measured: Measured) -> pd.DataFrame:
    """Configurations with what they got."""
    columns = frame_of(configs, scenario("hpolib").space.names).convert_dtypes()
    got = pd.DataFrame(measured(task, configs), columns=list(OBJECTIVES))
    return pd.concat([columns.assign(task=task), got], axis="columns").assign(value=0.0)


def of_optuna(sampler: optuna.samplers.BaseSampler, task: str, measured: Measured) -> Matrix:
    """50 trials, one after the other."""
    space = scenario("hpolib").space

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        config = {}
        for name, param in space.params.items():
            assert isinstance(param, Categorical)
            if param.is_ordered:  # by its place, so that its order counts
                place = trial.suggest_int(name, 0, len(param.choices) - 1)
                config[name] = param.choices[place]
            else:
                config[name] = trial.suggest_categorical(name, param.choices)
        return tuple(measured(task, [config])[0].tolist())

    study = optuna.create_study(directions=["minimize"] * len(OBJECTIVES), sampler=sampler)
    study.optimize(objective, n_trials=N)
    return np.array([trial.values for trial in study.trials])


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Repetitions of each data set.")
def main(seeds: int) -> None:
    """Print the table; fail where ours is below what is needed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values = tables()
    best = {task: _first_front(y) for task, y in values.items()}
    space = scenario("hpolib").space
    looked_up = [
        from_table("hpolib", space, {task: y[:, i] for task, y in values.items()})
        for i in range(len(OBJECTIVES))
    ]

    def measured(task: str, configs: list[Config]) -> Matrix:
        return np.column_stack([one.loss(task, configs) for one in looked_up])

    rows = []
    for seed, task in itertools.product(range(seeds), values):
        rng = np.random.default_rng([seed, 1])
        others = pd.concat(
            [as_runs(t, space.sample(N_OTHER, rng), measured) for t in values if t != task],
            ignore_index=True,
        )
        found = {
            "ours": ours(others, task, seed, measured),
            "ours, cold": ours(others.iloc[:0], task, seed, measured),
            "NSGA-II": of_optuna(optuna.samplers.NSGAIISampler(seed=seed), task, measured),
            "TPE": of_optuna(optuna.samplers.TPESampler(seed=seed), task, measured),
            "random": measured(task, space.sample(N, rng)),
        }
        within = {"nadir": best[task].max(axis=0), "worst": np.ones(len(OBJECTIVES))}
        for name, reference in within.items():
            whole = hypervolume(best[task], reference)
            share = {how: hypervolume(y, reference) / whole for how, y in found.items()}
            rows.append({"within": name, "task": task, **share})
    frame = pd.DataFrame(rows)
    for name, part in frame.groupby("within"):
        _show(str(name), part.drop(columns="within"))
    nadir = frame[frame["within"] == "nadir"].mean(numeric_only=True)
    if nadir["ours"] < LEAST * nadir[["NSGA-II", "TPE"]].max():
        raise SystemExit(1)


def _show(within: str, rows: pd.DataFrame) -> None:
    means = rows.groupby("task").mean()
    means.loc["mean"] = means.mean()
    lines = [
        [task, *(f"{share:.3f}" for share in row)]
        for task, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    click.echo(
        f"Share of the volume after {N}, within the {within}\n" + table(["data set", *means], lines)
    )
    mean = means.loc["mean"]
    peer = mean[["NSGA-II", "TPE"]].max()
    for how in ("ours", "ours, cold"):
        most = f", of {1 / peer:.3f} that there is"
        click.echo(f"{how}: {mean[how] / peer:.3f} of the better peer's{most}; needed {LEAST}")


if __name__ == "__main__":
    main()
