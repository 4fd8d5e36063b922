"""What MLflow's UI says of our own experiment and its runs: what each is, and what to click next.

Markdown, as the tag `mlflow.note.content` has it; links are relative, so that they hold behind any
address of the server.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from urllib.parse import quote

from mlflow_meta import shown
from mlflow_meta.store import names

NOTE = "mlflow.note.content"

OWN_EXPERIMENT = """Kept by **mlflow-meta**, which learns from the finished runs on this server what
to train next. Each run says what it is:

- `harvest`: the finished runs as they were read, and what was left out (`quarantine.csv`).
- `train`: a meta-model; its pictures are under Artifacts, its versions under Models.
- `suggest`: a batch of suggestions, drawn in its artifact `report.html`.
- `monitor`: what suggestions have brought, as a history under Model metrics.
- `ledger`: which run stands for which suggestion. Leave these as they are.

Nothing here is learned from. `mlflow-meta doctor` says what can be, and what to do next.
"""

HARVEST = """**What mlflow-meta has read** of the finished runs on this server.

Artifacts: `meta_dataset.parquet` has a row for each run, `quarantine.csv` those that were left out,
with the reason. Next: `mlflow-meta train`.
"""


def training(
    *, metric: str, model_name: str, kind: str, n_trials: int, n_tasks: int, is_update: bool = False
) -> str:
    """Of a run that has trained a meta-model, or updated one.

    Args:
        metric: What it predicts.
        model_name: Under which it is registered.
        kind: Of model.
        n_trials: From how many runs it has learned.
        n_tasks: How many tasks these are about.
        is_update: Whether it is another version with newer runs added.
    """
    how = "updated with newer runs" if is_update else "the best of those that were compared"
    seen = (
        ""
        if is_update
        else "Artifacts: `predicted-against-actual.png` shows how well it predicts runs that it "
        "had not seen, `importance.png` which params matter, `partial_dependence.png` what each "
        "does. "
        "Its nested runs are the kinds that were compared.\n\n"
    )
    page = f"[its versions](#/models/{quote(model_name, safe='')})"
    return (
        f"**A meta-model that predicts {shown.code(metric)}** without training anything, by "
        f"mlflow-meta: {shown.code(kind)}, {how}. It has learned from {n_trials} runs of {n_tasks} "
        f"tasks.\n\n{seen}"
        f"Next: {page} say whether it is the champion, and why. `mlflow-meta suggest` asks the "
        "champion.\n"
    )


def batch(
    *, n: int, experiment_name: str, metric: str, model: str, view: str, files: Collection[str]
) -> str:
    """Of a run that holds a batch of suggestions.

    Args:
        n: How many suggestions.
        experiment_name: Where they wait.
        metric: What they are to improve.
        model: Which meta-model has suggested them; empty where none was asked.
        view: The address of a view that shows them, from the server's root.
        files: What is drawn of them.
    """
    why = (
        f"chosen by {shown.code(model)} to improve {shown.code(metric)}"
        if model
        else f"chosen to cover the search space evenly, for a meta-model of {shown.code(metric)}"
    )
    drawn = {
        names.REPORT_FILE: "`report.html` draws what was expected beside the runs before",
        names.PARAMS_FILE: "`params.png` what each param does",
    }
    said = ", ".join(words for name, words in drawn.items() if name in files)
    where = shlex.quote(experiment_name)
    work = shown.code(f"mlflow-meta work -e {where} -- python train.py")
    report = shown.code(f"mlflow-meta report -e {where} --out report.html")
    return (
        f"**{n} suggestions for {shown.code(experiment_name)}**, {why}, by mlflow-meta.\n\n"
        f"Next: [see them in their experiment]({view.removeprefix('/')}), where each says why it "
        "was chosen."
        + (f" Under Artifacts here, {said}, as of then." if said else "")
        + f"\n\n{work} trains them; {report} shows what has come of them.\n"
    )
