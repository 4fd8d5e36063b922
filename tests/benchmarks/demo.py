"""How good are the suggestions in the demo's setting, over many teams instead of one?

    python tests/benchmarks/demo.py --teams 10

Each team has done what `mlflow-meta demo` shows: 16 random trainings on each of scikit-learn's
four data sets. Then it trains 5 more on `digits`, once those that `propose` suggests, once 5 more
at random; no MLflow is involved. Printed are the best loss of each relative to the best before
(geometric mean over the teams; below 1 is an improvement), how many teams improved, and how many of
the suggested trainings ended inside their 80% interval. Takes half a minute a team.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from mlflow_meta.demo import DATASETS, N_SUGGESTIONS, RUNS_EACH, TARGET
from mlflow_meta.demo.train import REGRESSION, SPACE, build, draw, evaluate, load
from mlflow_meta.models.choice import compare
from mlflow_meta.proposal import choose_batch, in_context, tried_on
from mlflow_meta.space import infer


def loss(dataset: str, config: dict, seed: int) -> float:
    """One training of the demo's script, less MLflow."""
    features, target = load(dataset)
    regression = dataset in REGRESSION
    order = np.random.default_rng(0).permutation(len(features))
    used = order < config["sample_share"] * len(features)
    pipeline = build(config, regression=regression, threads=1, seed=seed)
    with threadpool_limits(1):
        return evaluate(pipeline, features, target, used, regression=regression)["val_loss"]


def sweep(dataset: str, n: int, seed: int, turn: int = 0) -> pd.DataFrame:
    """`n` random trainings, by turns of algorithm."""
    rng = np.random.default_rng([seed, turn, *dataset.encode()])
    models = [list(SPACE)[(turn + i) % len(SPACE)] for i in range(n)]
    rows = []
    for config in (draw(model, rng) for model in models):
        params = {f"params.{name}": value for name, value in config.items()}
        rows.append({"task": dataset, "value": loss(dataset, config, seed), **params})
    return pd.DataFrame(rows)


def team(seed: int) -> dict[str, float]:
    """What one team gets out of 5 more trainings, suggested or random."""
    history = pd.concat([sweep(name, RUNS_EACH, seed) for name in DATASETS], ignore_index=True)
    trials = history.convert_dtypes()  # whole numbers are integers again, as in a harvest
    own = trials[trials["task"] == TARGET]
    space = infer(own).space
    champion = compare(trials, infer(trials).space)[0]
    configs, _ = choose_batch(
        champion.model,
        space,
        trials,
        task=TARGET,
        n=N_SUGGESTIONS,
        tried=tried_on(trials, TARGET),
        rng=np.random.default_rng(seed),
    )
    got = np.array([loss(TARGET, config, 0) for config in configs])
    low, high = champion.model.interval(in_context(configs, space, TARGET, {}))
    before = float(own["value"].min())
    luck = float(sweep(TARGET, N_SUGGESTIONS, seed, turn=seed + 1)["value"].min())
    return {
        "seed": seed,
        "model": champion.name,
        "before": before,
        "suggested": min(before, float(got.min())) / before,
        "random": min(before, luck) / before,
        "inside": float(np.mean((low <= got) & (got <= high))),
    }


def main() -> None:
    """Run the teams, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teams", type=int, default=10)
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for seed in range(parser.parse_args().teams):
        rows.append(team(seed))
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    table = pd.DataFrame(rows)
    ours, luck = (np.exp(np.log(table[name]).mean()) for name in ("suggested", "random"))
    print(
        f"\nloss after 5 more, relative to the best before: suggested {ours:.2f}, random {luck:.2f}"
    )
    wins = [int((table[name] < 1).sum()) for name in ("suggested", "random")]
    print(f"teams that improved, of {len(table)}: suggested {wins[0]}, random {wins[1]}")
    print(f"suggested trainings inside their 80% interval: {table['inside'].mean():.0%}")


if __name__ == "__main__":
    main()
