"""Part `tables`: models of real trainings, proved, and the engines that learn a policy beside that.

15 tables (HPOBench 8, HPOLib 4, NAS-Bench-201 3) are in `../shared/quality/data`, beside this
repository. For each, and each of 3 seeds, 200 random runs of its history are what a model of the
zoo learns from: `linear` a sum, `lightgbm` 500 trees. The search is not over the table, which is
small, but over what lies between its values: every ordered list of numbers becomes a range, real or
whole. NAS-Bench-201 has categories only, 5^6 = 15,625 configurations, and nothing between them: its
history is given three real parameters without effect (`noise_0` to `noise_2`, uniform on [0, 1]),
which a model does not know and takes for real in part. Every space is then of 10^9 or more.

k = 10. A proof is asked within 5 s. An engine that learns a policy has found the optimum where its
best score is the proven one's to 1e-9; where none is proven in half a minute either, the lowest
that any engine has found counts. Scores are in standard deviations of the history's values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from search_rows import Options, Row, say, seconds

from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.search import TopK, top_k
from mlflow_meta.space import SearchSpace

DATA = Path(__file__).parents[3] / "shared" / "quality" / "data"
SCENARIOS = ("hpobench", "hpolib", "nasbench201")
KINDS = {"linear": "sums (linear)", "lightgbm": "trees (lightgbm)"}
POLICIES = ("cross_entropy", "reinforce")
N_SEEDS = 3
N_RUNS = 200
N_NOISE = 3
K = 10
EXACT_S = 5.0
LONG_S = 30.0  # for the optimum that is compared with, and for an engine's own end
LEAST_CONFIGS = 1e9
LEAST_FOUND = 0.9
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One task, and the space that was refined."""

    name: str
    space: SearchSpace
    runs: pd.DataFrame

    def history(self, seed: int) -> pd.DataFrame:
        """200 random runs, as trials."""
        rng = np.random.default_rng(seed)
        some = self.runs.iloc[rng.permutation(len(self.runs))[:N_RUNS]].reset_index(drop=True)
        for name in self.space.names:
            if name.startswith("noise_"):
                some[f"params.{name}"] = rng.random(len(some))
        return some


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What was found of one model.

    Attributes:
        proof: In `EXACT_S`.
        long: In `LONG_S`, where that was not enough.
        optimum: The lowest score that any of them found.
        policies: By engine.
    """

    proof: TopK
    long: TopK
    optimum: float
    policies: Mapping[str, TopK]

    def off(self, engine: str) -> float:
        """How far an engine's best score is above the best that is known."""
        return float(self.policies[engine].scores[0]) - self.optimum


def rows(options: Options) -> Iterator[Row]:
    """See the module."""
    if not DATA.is_dir():
        words = f"left out: there is no {DATA}"
        yield Row(what="tables: 15 tables of real trainings", value=np.nan, seen=words)
        return
    tables = [table for name in SCENARIOS for table in tables_of(name)]
    n_seeds = N_SEEDS
    if options.small:
        tables, n_seeds = tables[::7], 1
    for kind, words in KINDS.items():
        judged = [_judged(table, kind, seed) for table in tables for seed in range(n_seeds)]
        yield from _proofs(f"tables/{words}", judged)
        for engine in POLICIES:
            yield from _policy(f"tables/{words}: {engine}", engine, judged)


def tables_of(scenario: str) -> Iterator[Table]:
    """The tables of a scenario."""
    spec = json.loads((DATA / f"{scenario}.space.json").read_text())
    space = _refined(spec["params"])
    history = pd.read_parquet(DATA / f"{scenario}.history.parquet")
    random = history[history["source"] == "random"]
    sign = -1.0 if spec["goal"] == "max" else 1.0
    for task in spec["tasks"]:
        own = random[random["task"].astype(str) == task]
        known = {
            f"params.{name}": _column(own[name], param) for name, param in spec["params"].items()
        }
        runs = pd.DataFrame({**known, "value": sign * own["metric"].to_numpy(float)})
        yield Table(name=f"{scenario} {task}", space=space, runs=runs.assign(task=task))


def _column(values: pd.Series, param: Mapping[str, Any]) -> np.ndarray:
    if param["type"] == "cat":
        return values.to_numpy(dtype=object)
    return values.to_numpy(dtype=np.int64 if param["int"] else float)


def _refined(params: Mapping[str, Mapping[str, Any]]) -> SearchSpace:
    entries: dict[str, dict[str, Any]] = {}
    for name, param in params.items():
        if param["type"] == "cat":
            entries[name] = {"type": "categorical", "choices": param["choices"]}
            continue
        low, high = min(param["choices"]), max(param["choices"])
        kind = "int" if param["int"] else "float"
        entries[name] = {"type": kind, "low": low, "high": high, "log": param["log"]}
    if all(entry["type"] == "categorical" for entry in entries.values()):
        noise = {"type": "float", "low": 0.0, "high": 1.0}
        entries |= {f"noise_{i}": noise for i in range(N_NOISE)}
    return SearchSpace.from_dict(entries)


def _judged(table: Table, kind: str, seed: int) -> Judged:
    model = ZOO[kind]()
    model.learn(table.history(seed), table.space)
    proof = _asked(model, table, seed, "auto", EXACT_S)
    long = proof if proof.is_exact else _asked(model, table, seed, "auto", LONG_S)
    policies = {name: _asked(model, table, seed, name, LONG_S) for name in POLICIES}
    best = min(float(found.scores[0]) for found in (long, *policies.values()))
    judged = Judged(proof=proof, long=long, optimum=best, policies=policies)
    offs = ", ".join(f"{name} {judged.off(name):.2g} off" for name in POLICIES)
    is_exact = "exact" if proof.is_exact else "NOT EXACT"
    say(f"{kind}, {table.name}, seed {seed}: {is_exact} {seconds(proof.seconds)}; {offs}")
    return judged


def _asked(model: MetaModel, table: Table, seed: int, engine: str, budget_s: float) -> TopK:
    rng, context = np.random.default_rng(seed), {"task": table.runs["task"].iloc[0]}
    return top_k(model, table.space, K, context=context, budget_s=budget_s, engine=engine, rng=rng)


def _proofs(what: str, judged: list[Judged]) -> Iterator[Row]:
    proofs = [one.proof for one in judged]
    n_configs = min(proof.n_configs for proof in proofs)
    yield Row(
        what=f"{what}: configurations, the smallest space",
        value=n_configs,
        seen=f"{n_configs:.1e}",
        least=LEAST_CONFIGS,
    )
    n_exact = sum(proof.is_exact and proof.seconds <= EXACT_S for proof in proofs)
    took_s = [proof.seconds for proof in proofs]
    yield Row(
        what=f"{what}: top {K} proved within {EXACT_S:g} s",
        value=n_exact,
        seen=f"{n_exact} of {len(proofs)} (median {seconds(median(took_s))}, "
        f"slowest {seconds(max(took_s))})",
        least=len(proofs),
    )
    n_long = sum(one.long.is_exact for one in judged)
    slowest = max(one.long.seconds for one in judged)
    yield Row(
        what=f"{what}: top {K} proved within {LONG_S:g} s",
        value=n_long,
        seen=f"{n_long} of {len(judged)} (slowest {seconds(slowest)})",
    )


def _policy(what: str, engine: str, judged: list[Judged]) -> Iterator[Row]:
    offs = [one.off(engine) for one in judged]
    n_found, n = sum(off <= SAME for off in offs), len(offs)
    took_s = median(one.policies[engine].seconds for one in judged)
    yield Row(
        what=f"{what}: optimum found",
        value=100 * n_found / n,
        seen=f"{n_found} of {n}, {100 * n_found / n:.0f} % (median {seconds(took_s)})",
        least=100 * LEAST_FOUND,
        unit=" %",
    )
    yield Row(
        what=f"{what}: gap, standard deviations",
        value=float(np.mean(offs)),
        seen=f"mean {np.mean(offs):.2g}, largest {max(offs):.2g}",
    )
