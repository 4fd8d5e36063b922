"""What the name of a metric says: which values are better, of which split it is, what it shares.

split  training, held out, or not said: the first or the last word of a name, as in `val_loss`
stem   the words that are left, lower case: `val_loss`, `test/Loss` and `loss` all have `loss`
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mlflow_meta.trials import Direction

_RESOURCES = frozenset(["time", "seconds", "latency", "duration", "cost"])
_MINIMIZED = _RESOURCES | frozenset(
    [
        "loss",
        "logloss",
        "error",
        "err",
        "rmse",
        "mse",
        "mae",
        "mape",
        "smape",
        "rmsle",
        "perplexity",
        "nll",
        "wer",
        "cer",
        "brier",
        "deviance",
        "regret",
        "entropy",
        "distance",
        "fid",
    ]
)
_MAXIMIZED = frozenset(
    [
        "accuracy",
        "acc",
        "auc",
        "auroc",
        "auprc",
        "ap",
        "f1",
        "fbeta",
        "precision",
        "recall",
        "r2",
        "score",
        "map",
        "ndcg",
        "bleu",
        "rouge",
        "iou",
        "dice",
        "reward",
        "return",
        "correlation",
        "spearman",
        "pearson",
        "kappa",
        "mcc",
        "specificity",
        "sensitivity",
        "likelihood",
    ]
)
_TRAINING = frozenset(["train", "training"])
# What configurations are chosen by comes first. The test set is to be looked at once, after that.
_HELD_OUT = ("val", "valid", "validation", "dev", "cv", "holdout", "eval", "test")
_SEPARATORS = re.compile(r"[_\-/. ]+")
_PREDICTED = tuple(f"{what}predicted_" for what in ("", "std_", "low_80_", "high_80_"))
_NOT_RESULTS = (
    "system/",
    "mlflow_meta.",
    "duration_predicted_s",
    *_PREDICTED,
)  # the machine's load, and what is ours


def direction_of(metric: str) -> Direction | None:
    """What a metric's name says about its direction; None where it says nothing or both."""
    words = set(_SEPARATORS.split(metric.lower()))
    low, high = bool(words & _MINIMIZED), bool(words & _MAXIMIZED)
    if low == high:
        return None
    negated = bool(words & {"neg", "negative"})
    return Direction.MINIMIZE if low != negated else Direction.MAXIMIZE


def is_training(metric: str) -> bool:
    """Whether the name says that it was measured on what the model was trained on."""
    return _split_and_stem(metric)[0] in _TRAINING


def is_held_out(metric: str) -> bool:
    """Whether the name says that it was measured on data that the model had not seen."""
    return _split_and_stem(metric)[0] in _HELD_OUT


def is_resource(metric: str) -> bool:
    """Whether it says what a training took rather than how good it became."""
    return bool(_RESOURCES & set(_SEPARATORS.split(metric.lower())))


def groups(metrics: Iterable[str]) -> list[tuple[str, ...]]:
    """The metrics that differ by split, separator or case alone; training ones by themselves.

    In a group, validation stands before test, and names that say no split come last. The machine's
    load (`system/...`) and what is ours (`predicted_...`, `mlflow_meta...`) are in none.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    for metric in sorted(metrics):
        split, stem = _split_and_stem(metric)
        if not metric.startswith(_NOT_RESULTS):
            found.setdefault((stem, split in _TRAINING), []).append(metric)
    return [tuple(sorted(names, key=_place)) for names in found.values()]


def _place(metric: str) -> int:
    split = _split_and_stem(metric)[0]
    return _HELD_OUT.index(split) if split in _HELD_OUT else len(_HELD_OUT)


def _split_and_stem(metric: str) -> tuple[str, str]:
    words = [word for word in _SEPARATORS.split(metric.lower()) if word]
    for place, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        if len(words) > 1 and (words[place] in _TRAINING or words[place] in _HELD_OUT):
            return words[place], " ".join(words[rest])
    return "", " ".join(words) or metric
