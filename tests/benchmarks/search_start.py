"""Part `start`: how long a new process takes to its answer, as a command does that is run once.

Judged is `import mlflow_meta.search` and the search of a surface, from the call to its end; in them
are numba's own import, and the compiled code's way from its file or, in the first use ever, the
compiling. Not in them are Python's start, and the model: it is fitted before and handed over as
arrays. Where compiled code is kept is a new folder; who fills it is the first use ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

WARM_S, FIRST_S = 4.0, 20.0
BUDGET_S = 60.0
K = 100


def rows(options: Any) -> Iterator[Any]:
    """See the module."""
    from search_models import case, numbers
    from search_rows import Row, say

    n_params, n_trees = (6, 20) if options.small else (9, 100)
    few, many = numbers(n_params, 10), numbers(6 if options.small else 15, 11)
    asked = {
        f"network of 32 units, 10^{n_params}, scan": ("scan", case("network", few, 32)),
        f"LightGBM {n_trees} x 16, 10^{n_params}, scan": (
            "scan",
            case("trees", few, n_trees, 16, -1),
        ),
        f"LightGBM {2 * n_trees} x 16, 11^{len(many.names)}, branch": (
            "branch",
            case("trees", many, 2 * n_trees, 16, 5),
        ),
    }
    for what, (engine, of) in asked.items():
        say(f"start/{what}")
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "surface.npz"
            _save(of.surface(), saved)
            took = [_process(engine, saved, Path(folder)) for _ in range(options.repeats + 1)]
        for name, some, most in (("first use", took[:1], FIRST_S), ("warm", took[1:], WARM_S)):
            imports, search = (median(t[key] for t in some) for key in ("imports_s", "search_s"))
            both = median(t["imports_s"] + t["search_s"] for t in some)
            seen = f"{both:.2f} s (imports {imports:.2f}, search {search:.2f})"
            yield Row(what=f"start/{what}: {name}", value=both, seen=seen, most=most, unit=" s")


def _save(surface: Any, file: Path) -> None:
    """A surface's fields; of a tuple of tables each by its number."""
    import dataclasses

    import numpy as np

    given: dict[str, Any] = {"kind": type(surface).__name__}
    for field in dataclasses.fields(surface):
        value = getattr(surface, field.name)
        if field.name == "tables":
            given |= {f"tables.{i:03}": table for i, table in enumerate(value)}
        else:
            given[field.name] = value
    np.savez(file, **given)


def _loaded(file: Path) -> Any:
    import numpy as np

    from mlflow_meta.search import surface

    with np.load(file, allow_pickle=False) as saved:
        given = {name: saved[name] for name in saved}
    kind = getattr(surface, str(given.pop("kind")))
    tables = tuple(given.pop(name) for name in sorted(given) if name.startswith("tables."))
    given["constant"] = float(given["constant"])
    if tables:
        return kind(tables=tables, **given)
    return kind(**given | {"sizes": tuple(given["sizes"].tolist())})


def _process(engine: str, saved: Path, cache: Path) -> dict[str, float]:
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache / "numba")}
    argv = [sys.executable, __file__, engine, str(saved)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return dict(json.loads(done.stdout))


def _answer(engine: str, saved: Path) -> dict[str, float]:
    """In the new process: nothing of ours has been imported before."""
    start = time.perf_counter()
    from mlflow_meta.search import ENGINES

    imports_s = time.perf_counter() - start
    import numpy as np

    surface = _loaded(saved)
    start = time.perf_counter()
    for found in ENGINES[engine](surface, K, np.random.default_rng(0)):
        search_s, gap = time.perf_counter() - start, found.gap
        if search_s > BUDGET_S:
            break
    # What is not proven has not been found in any time.
    return {"imports_s": imports_s, "search_s": search_s if gap == 0 else float("inf")}


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1], Path(sys.argv[2]))))
