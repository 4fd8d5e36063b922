"""Part `growth`: how the time grows with parameters, levels, trees and k; engines alone.

Four panels; what a panel does not vary is 10 levels, 100 trees of 16 leaves and depth 5, 32 units,
k = 100; and 12 parameters of a sum and of trees, 7 of a network, as a scan values every row. A
search that takes longer than `MOST_S` is stopped: the figure has it as an open circle. Above all
trees take times that differ by what they have learned: every point is the middle of three models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from search_models import case, numbers
from search_rows import Options, Row, say, seconds

from mlflow_meta.search import ENGINES

FIGURE = Path(__file__).parents[2] / "build" / "search-growth.png"
MOST_S = 10.0
N_MODELS = 3  # at every point, for the one in the middle
ENGINE = {"additive": "fold", "trees": "branch", "network": "scan"}
NAMES = {"additive": "sum, fold", "trees": "trees, branch and bound", "network": "network, scan"}
MAX_TICKS = 6
TICKS = [digit * 10**power for power in range(5) for digit in (1, 3)]
POINTS: dict[str, dict[str, Sequence[int]]] = {
    "parameters": {
        "additive": (5, 10, 20, 40, 80),
        "trees": (5, 10, 15, 20, 30),
        "network": (6, 7, 8, 9),
    },
    "levels": {
        "additive": (3, 10, 30, 100, 300),
        "trees": (3, 10, 30, 100, 300),
        "network": (4, 8, 12, 16, 20),
    },
    "trees, or units": {"trees": (25, 50, 100, 200, 400), "network": (8, 16, 32, 64, 128)},
    "k": {
        "additive": (1, 10, 100, 1000, 10_000),
        "trees": (1, 10, 100, 1000, 10_000),
        "network": (1, 10, 100, 1000, 10_000),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
        panel: A key of `POINTS`.
        kind: Of model.
        at: What is varied, `(n,)`.
        all_s: What it took, `(n,)`.
        is_done: Whether it ended with a proof, `(n,)`.
    """

    panel: str
    kind: str
    at: tuple[int, ...]
    all_s: tuple[float, ...]
    is_done: tuple[bool, ...]

    def __str__(self) -> str:
        took = zip(self.all_s, self.is_done, strict=True)
        return ", ".join(f"{'' if done else '>'}{s:.2g}" for s, done in took) + " s"


def rows(options: Options) -> Iterator[Row]:
    """See the module."""
    lines = []
    for panel, kinds in POINTS.items():
        for kind, points in kinds.items():
            line = _line(panel, kind, points[:2] if options.small else points)
            lines.append(line)
            yield Row(
                what=f"growth/{panel} {', '.join(map(str, line.at))}: {NAMES[kind]}",
                value=np.nan,
                seen=str(line),
            )
    _draw(lines)
    yield Row(what="growth: the figure", value=np.nan, seen="build/search-growth.png")


def _line(panel: str, kind: str, points: Sequence[int]) -> Line:
    _took(panel, kind, points[0], 0)  # compiles
    took = []
    for point in points:
        of_each = sorted(_took(panel, kind, point, seed) for seed in range(N_MODELS))
        took.append(of_each[N_MODELS // 2])
        say(f"growth/{panel} {point}, {NAMES[kind]}: {seconds(took[-1][0])}")
    all_s, is_done = zip(*took, strict=True)
    return Line(panel=panel, kind=kind, at=tuple(points), all_s=all_s, is_done=is_done)


def _took(panel: str, kind: str, point: int, seed: int) -> tuple[float, bool]:
    """Seconds of one search, and whether it has ended with a proof."""
    given = {"parameters": 7 if kind == "network" else 12, "levels": 10, "k": 100}
    given |= {"trees, or units": 32 if kind == "network" else 100, panel: point}
    n = given["trees, or units"]
    sizes = {"additive": (), "trees": (n, 16, 5), "network": (n,)}[kind]
    space = numbers(given["parameters"], given["levels"])
    surface = case(kind, space, *sizes, seed=seed).surface()
    start, is_done = time.perf_counter(), False
    for found in ENGINES[ENGINE[kind]](surface, given["k"], np.random.default_rng(0)):
        is_done = found.gap == 0
        if time.perf_counter() - start > MOST_S:
            break
    return time.perf_counter() - start, is_done


def _draw(lines: Sequence[Line]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(POINTS), figsize=(12, 3.2), sharey=True, layout="constrained"
    )
    axes = dict(zip(POINTS, panels, strict=True))
    colours = dict(zip(ENGINE, ("tab:blue", "tab:green", "tab:red"), strict=True))
    for line in lines:
        ax, colour = axes[line.panel], colours[line.kind]
        ax.loglog(line.at, line.all_s, color=colour, label=NAMES[line.kind])
        for at, s, done in zip(line.at, line.all_s, line.is_done, strict=True):
            ax.plot(at, s, "o", color=colour, markerfacecolor=colour if done else "white")
    for name, ax in axes.items():
        low, high = ax.get_xlim()
        ticks = [at for at in TICKS if low <= at <= high]
        ticks = ticks[::2] if len(ticks) > MAX_TICKS else ticks
        ax.set_xticks(ticks, [f"{at:,}" for at in ticks])
        ax.minorticks_off()
        ax.set_xlabel(name)
        ax.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(fontsize="small")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=120)
    plt.close(figure)
