"""A batch of suggestions as runs that wait, with what people read of each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from mlflow_meta.store import names, queue
from mlflow_meta.store.mlflow_store import MlflowStore
from mlflow_meta.trials import Objective, Suggestion

Describe = Callable[[Suggestion], tuple[str, Mapping[str, str]]]
"""A suggestion -> its run's description, as `note` makes it, and tags."""


def schedule(
    store: MlflowStore,
    experiment_name: str,
    items: Sequence[Suggestion],
    objective: Objective,
    describe: Describe,
    param_names: Sequence[str],
) -> tuple[list[str], str]:
    """Write suggestions as SCHEDULED runs of one batch, and a view that shows them.

    Returns:
        The runs' ids, in the order of `items`; and the view's address, see `queue.share_view`.
    """
    batch = uuid.uuid4().hex
    run_ids: list[str] = []
    # The UI shows the newest run first: written last to first, the best one is on top.
    for item in reversed(items):
        text, tags = describe(item)
        tags = {**tags, names.BATCH: batch}
        run_ids.append(
            queue.schedule(store, experiment_name, item, objective, note=text, tags=tags)
        )
    return run_ids[::-1], queue.share_view(store, experiment_name, objective, param_names)


def note(item: Suggestion, experiment_name: str, *, title: str, said: str, origin: str = "") -> str:
    """The description of a suggested run, which the UI shows as Markdown.

    Args:
        item: The suggestion.
        experiment_name: Where it waits.
        title: Its first words.
        said: What is expected of it.
        origin: What has predicted that, as a sentence.
    """
    params = "\n".join(f"| `{name}` | `{value}` |" for name, value in item.config.items())
    work = f"`mlflow-meta work -e '{experiment_name}' -- python train.py`"
    end = f"{origin} While it is scheduled, {work} trains it.".strip()
    parts = [f"**{title}** by mlflow-meta.", said, f"| param | value |\n|---|---|\n{params}", end]
    return "\n\n".join(parts) + "\n"
