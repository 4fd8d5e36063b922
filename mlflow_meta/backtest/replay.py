"""The replay: which runs of the pool a way chooses, and what each way comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.backtest import chance
from mlflow_meta.backtest.tpe import is_installed, tpe
from mlflow_meta.batch import covering, jointly_best
from mlflow_meta.columns import columns_with
from mlflow_meta.errors import NothingToLearn
from mlflow_meta.features import Encoder
from mlflow_meta.models import ZOO, JointSampler
from mlflow_meta.proposal import N_DRAWS, N_RIVALS
from mlflow_meta.space import SearchSpace

Vector = NDArray[np.float64]
Choose = Callable[[pd.DataFrame, pd.DataFrame, int], list[int]]
"""What is known (with `value`), the pool (without), how many -> places in the pool, best first."""

BATCH = 5  # runs that are chosen before any of them is known, as `suggest` does by default
MIN_START = 5  # runs that every way is told at the least
START_SHARE = 0.2  # of the task's runs
FEW = 15  # runs in the pool below which a replay is an anecdote
NEAR = 0.05  # share of the way from the pool's best to its median that counts as there
N_STUDIES = 5  # of TPE, whose courses differ much by its seed
BAND = (0.1, 0.9)  # quantiles between which a way's courses are drawn
MAX_CHECKS = 8  # batches whose intervals are checked; each takes a cross-validation
LEVELS = (0.8, 0.9)  # of the intervals that are checked
_MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # further runs that are reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to go through the pool.

    Attributes:
        course: `(n,)` the lowest value after 1 ... n further runs, on average; minimised.
        low: `(n,)` what a tenth of its courses stay below; the course itself where there is one.
        high: `(n,)` what a tenth of its courses stay above.
        needed: Further runs until it came within `NEAR` of the pool's best, on average.
    """

    course: Vector
    low: Vector
    high: Vector
    needed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many runs lay in the interval that was predicted before they were known.

    Attributes:
        level: What the interval promises.
        share: What it held; nan where no run was predicted.
        n: Of how many runs.
    """

    level: float
    share: float
    n: int

    @property
    def error(self) -> float:
        """Binomial standard error of the share, were the promise true; nan for no run."""
        return float(np.sqrt(self.level * (1 - self.level) / self.n)) if self.n else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What a replay of one task's history came to.

    Attributes:
        task: Whose history.
        n_start: How many runs every way was told.
        n_others: How many runs of other tasks were known by then.
        best_of_start: The lowest value among the start; the pool need not have a lower one.
        pool: `(n,)` values of the pool, minimised, as they were run.
        ways: `ours`, `as run`, `random` and, where Optuna is there, `TPE`.
        coverage: Of the intervals of runs one batch ahead, in the order as they were run; of up to
            `MAX_CHECKS` batches, evenly spread.
    """

    task: str
    n_start: int
    n_others: int
    best_of_start: float
    pool: Vector
    ways: Mapping[str, Way]
    coverage: Sequence[Coverage]

    @property
    def is_anecdote(self) -> bool:
        """Whether the pool is too small to tell a good way from a lucky one."""
        return len(self.pool) < FEW

    @property
    def marks(self) -> list[int]:
        """The numbers of further runs to report."""
        return sorted({*(m for m in _MARKS if m < len(self.pool)), len(self.pool)})

    def regret(self, course: Vector) -> Vector:
        """What a course lacks to the pool's best, in the metric's units; >= 0."""
        return np.asarray(np.maximum(course - self.pool.min(), 0.0))

    def share(self, course: Vector) -> Vector:
        """The same, 0 at the pool's best and 1 at its median."""
        return self.regret(course) / _spread(self.pool)


def backtest(
    trials: pd.DataFrame,
    space: SearchSpace,
    *,
    task: str,
    rng: np.random.Generator,
    progress: Callable[[str], None] = lambda _: None,
) -> Backtest:
    """Replay the history of `task`: ours against the order as it was run, random and TPE.

    At any moment the other tasks' trials are known that stand before the task's next one in the
    order as it was run: what was started later, no way has heard of. The space is that of all
    trials, for the pool's configs are known; their values are not.

    Args:
        trials: As `propose` takes them, in the order of their start.
        space: How to read params.
        task: Which task.
        rng: Equal generators give equal replays.
        progress: Called with what is being done.

    Raises:
        NothingToLearn: If the task has too few trials, or no value in the pool that is better than
            most.
    """
    trials = trials.reset_index(drop=True)
    rows = _rows_of(trials, task)
    n_start = _n_start(len(rows))
    if len(rows) - n_start < BATCH:
        raise NothingToLearn(
            f"A backtest starts with {MIN_START} runs and needs at least {BATCH} more to choose "
            f"from, but {task!r} has {len(rows)} finished runs with the metric. Train "
            f"{n_start + BATCH - len(rows)} more, or backtest an experiment that has them."
        )
    values = trials["value"].to_numpy(float)[rows]
    pool = values[n_start:]
    if not np.all(np.isfinite(values)):
        raise ValueError("Every trial's value must be finite; leave out the others.")
    if _spread(pool) <= 0:
        raise NothingToLearn(
            f"At least half of the {len(pool)} runs of {task!r} after the first {n_start} are "
            f"equally good ({pool.min():.5g}), so there is nothing to find. Is it the right metric?"
        )

    def courses(name: str, make: Callable[[], Choose], n: int) -> Way:
        def say(n_known: int) -> None:
            progress(f"replaying {name}: {n_known} of {len(pool)} runs")

        orders = [replay(trials, task, make(), n_start=n_start, progress=say) for _ in range(n)]
        return _way(pool, [np.minimum.accumulate(pool[order]) for order in orders])

    ways = {
        "ours": courses("ours", lambda: most_promising(space, task, rng), 1),
        "as run": _way(pool, [np.minimum.accumulate(pool)]),
        "random": _random(pool),
    }
    if is_installed():
        ways["TPE"] = courses("TPE", lambda: tpe(space, task, rng), N_STUDIES)
    return Backtest(
        task=task,
        n_start=n_start,
        n_others=int(rows[n_start]) - n_start,
        best_of_start=float(values[:n_start].min()),
        pool=pool,
        ways=ways,
        coverage=_coverage(trials, space, rows, n_start, progress),
    )


def replay(
    trials: pd.DataFrame,
    task: str,
    choose: Choose,
    *,
    n_start: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[int]:
    """The order in which `choose` goes through the pool of `task`, as places in the pool.

    It is asked for a batch at a time, and never handed the value of a run before it has chosen it.
    """
    rows = _rows_of(trials, task)
    order: list[int] = []
    while left := [i for i in range(len(rows) - n_start) if i not in set(order)]:
        progress(len(order))
        own = [*rows[:n_start], *(rows[n_start + i] for i in order)]
        known = _known(trials, rows, own)
        pool = trials.iloc[[rows[n_start + i] for i in left]].drop(columns="value")
        order += [left[i] for i in choose(known, pool, min(BATCH, len(left)))]
    return order


def most_promising(space: SearchSpace, task: str, rng: np.random.Generator) -> Choose:
    """Our way: what `proposal.choose_batch` does, with the pool in place of a search."""

    def choose(known: pd.DataFrame, pool: pd.DataFrame, n: int) -> list[int]:
        own = known[known["task"].astype(str) == task]
        model = ZOO["transfer"]()
        try:
            model.learn(known, space)
        except NothingToLearn:
            return _evenly(own, pool, space, n)
        sampler = model.regressor
        assert isinstance(sampler, JointSampler), "transfer knows how configs vary together"
        lowest = np.argsort(model.score(own).mean, kind="stable")[:N_RIVALS]
        X = np.vstack([model.encoder.encode(pool), model.encoder.encode(own.iloc[lowest])])
        draws = sampler.sample(X, N_DRAWS, rng)
        reached = draws[:, len(pool) :].min(axis=1)
        chosen = np.array(jointly_best(draws[:, : len(pool)], reached, n))
        predicted = model.score(pool.iloc[chosen]).mean
        return [int(i) for i in chosen[np.argsort(predicted, kind="stable")]]

    return choose


def _evenly(own: pd.DataFrame, pool: pd.DataFrame, space: SearchSpace, n: int) -> list[int]:
    """Those that cover the pool evenly: nothing is known."""
    both = pd.concat([pool, own])[columns_with(pool, "params.")].assign(task="")
    positions = Encoder.learn(both, space).encode(both)
    return covering(positions[: len(pool)], positions[len(pool) :], n)


def _coverage(
    trials: pd.DataFrame,
    space: SearchSpace,
    rows: NDArray[np.int64],
    n_start: int,
    progress: Callable[[str], None],
) -> list[Coverage]:
    """Every run predicted from what was known before its batch, by a calibrated model."""
    inside: dict[float, list[bool]] = {level: [] for level in LEVELS}
    for n_known, batch in _batches(rows, n_start):
        progress(f"checking intervals: {n_known - n_start} of {len(rows) - n_start} runs")
        model = ZOO["transfer"]()
        try:
            model.fit(_known(trials, rows, rows[:n_known]), space)
        except NothingToLearn:
            continue
        ahead = trials.iloc[batch]
        values = ahead["value"].to_numpy(float)
        for level in LEVELS:
            low, high = model.interval(ahead.drop(columns="value"), level)
            inside[level] += [bool(hit) for hit in (low <= values) & (values <= high)]
    return [
        Coverage(level=level, share=float(np.mean(hits)) if hits else float("nan"), n=len(hits))
        for level, hits in inside.items()
    ]


def _batches(rows: NDArray[np.int64], n_start: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """How many runs are known, and the batch after them: of many batches, evenly spread ones."""
    starts = np.arange(n_start, len(rows), BATCH)
    places = np.linspace(0, len(starts) - 1, min(MAX_CHECKS, len(starts))).round().astype(int)
    for n_known in starts[places]:
        yield int(n_known), rows[n_known : n_known + BATCH]


def _known(
    trials: pd.DataFrame, rows: NDArray[np.int64], own: Sequence[int] | NDArray[np.int64]
) -> pd.DataFrame:
    """The task's trials `own`, and the others that were started before its next one."""
    before = np.arange(rows[len(own)])
    others = np.setdiff1d(before, rows)
    return trials.iloc[np.sort(np.concatenate([others, np.asarray(own, dtype=np.int64)]))]


def _rows_of(trials: pd.DataFrame, task: str) -> NDArray[np.int64]:
    return np.flatnonzero((trials["task"].astype(str) == task).to_numpy())


def _n_start(n: int) -> int:
    return max(MIN_START, int(np.ceil(START_SHARE * n)))


def _spread(pool: Vector) -> float:
    return float(np.median(pool) - pool.min())


def _is_near(pool: Vector, course: Vector) -> NDArray[np.bool_]:
    return np.asarray(course - pool.min() <= NEAR * _spread(pool))


def _way(pool: Vector, courses: Sequence[Vector]) -> Way:
    every = np.array(courses)
    low, high = np.quantile(every, BAND, axis=0)
    needed = [1 + int(np.argmax(_is_near(pool, course))) for course in courses]
    return Way(course=every.mean(axis=0), low=low, high=high, needed=float(np.mean(needed)))


def _random(pool: Vector) -> Way:
    return Way(
        course=chance.expected_course(pool),
        low=chance.course_quantile(pool, BAND[0]),
        high=chance.course_quantile(pool, BAND[1]),
        needed=chance.expected_wait(len(pool), int(_is_near(pool, pool).sum())),
    )
