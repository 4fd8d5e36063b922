"""A backtest as a table and sentences, and as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_meta.backtest.replay import FEW, NEAR
from mlflow_meta.cli import show
from mlflow_meta.cli.terminal import echo, say_next

if TYPE_CHECKING:
    from mlflow_meta.backtest import Backtest, Coverage
    from mlflow_meta.services.backtest import Backtesting


def words(done: Backtesting) -> None:
    """The regret of every way, what was saved, and how far it can be believed."""
    found, sought = done.found, done.objective
    sign = sought.direction.sign
    regrets = {name: found.regret(way.course) for name, way in found.ways.items()}
    shares = {name: found.share(way.course) for name, way in found.ways.items()}
    show.table(
        ["runs further", *(f"{name}: lacks {sought.metric}" for name in found.ways)],
        [
            [n, *(f"{regrets[name][n - 1]:.4g} ({shares[name][n - 1]:.0%})" for name in found.ways)]
            for n in found.marks
        ],
    )
    echo(
        f"{found.task}: {found.n_start} runs and {found.n_others} of other tasks were given; of "
        f"{len(found.pool)} further ones the best has {sign * found.pool.min():.5g} (0%), the "
        f"median {sign * _median(found):.5g} (100%)."
    )
    echo(saved(found))
    for held in found.coverage:
        echo(_coverage(held))
    if found.best_of_start <= found.pool.min():
        echo(
            f"The best run of all was among the first {found.n_start}: none of the further ones "
            "was needed.",
            err=True,
        )
    if found.is_anecdote:
        echo(
            f"Fewer than {FEW} runs to choose from: this is an anecdote, and luck may be all of "
            "it.",
            err=True,
        )
    if "TPE" not in found.ways:
        echo("To compare with Optuna's TPE: pip install optuna", err=True)
    say_next(show.train_command(sought, done.tasks_by))


def saved(found: Backtest) -> str:
    """What it came to, in one sentence."""
    needed = {name: way.needed for name, way in found.ways.items()}
    ours = needed.pop("ours")
    others = ", ".join(f"{name} {n:.3g}" for name, n in needed.items())
    gain = needed["random"] - ours
    verdict = f"{_runs(gain)} saved" if gain > 0 else f"{_runs(-gain)} lost"
    return (
        f"To come within {NEAR:.0%} of the best, ours needed {_runs(ours)} ({others}): {verdict} "
        "against random. It is one history, so luck is part of it."
    )


def data(done: Backtesting) -> dict[str, Any]:
    """The same for programs; values and regrets in the metric's units."""
    found, sign = done.found, done.objective.direction.sign
    return {
        **done.objective.to_dict(),
        "tasks_by": done.tasks_by,
        "task": found.task,
        "n_start": found.n_start,
        "n_others": found.n_others,
        "n_pool": len(found.pool),
        "best_of_start": sign * found.best_of_start,
        "best_of_pool": sign * float(found.pool.min()),
        "median_of_pool": sign * _median(found),
        "is_anecdote": found.is_anecdote,
        "ways": [
            {
                "name": name,
                "needed": way.needed,
                "regret": found.regret(way.course).tolist(),
                "share": found.share(way.course).tolist(),
            }
            for name, way in found.ways.items()
        ],
        "coverage": [
            {"level": c.level, "share": c.share, "n": c.n, "error": c.error} for c in found.coverage
        ],
    }


def _runs(n: float) -> str:
    return "1 run" if n == 1 else f"{n:.3g} runs"


def _median(found: Backtest) -> float:
    ordered = sorted(found.pool)
    middle = len(ordered) // 2
    return float((ordered[middle] + ordered[~middle]) / 2)


def _coverage(held: Coverage) -> str:
    if not held.n:
        return f"No run could be predicted: its {held.level:.0%} intervals are not checked."
    return (
        f"{held.share:.0%} of {held.n} runs lay in the {held.level:.0%} interval predicted a batch "
        f"ahead (were it true: give or take {held.error:.0%})."
    )
