"""Runs that are to stop: what a tag says of them, and the hook for programs of your own.

`watch --stop` sets the tag `mlflow_meta.stop` of a run that trains; so may a person. A worker of
ours honours it at its next heartbeat. A program that was started otherwise asks `should_stop`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_meta.space.decisions import is_kept, is_yes
from mlflow_meta.store import names

ASK_AGAIN_S = 5.0  # an answer is good for so long, so that asking at each step costs nothing

log = logging.getLogger(__name__)

_answers: dict[str, tuple[float, bool]] = {}  # run id -> when it was asked, on a clock; the answer
_using_answers = threading.Lock()


def is_asked_to_stop(tags: Mapping[str, str]) -> bool:
    """Whether somebody asks a run with these tags to stop."""
    return is_yes(tags.get(names.STOP, ""))


def is_to_stop(tags: Mapping[str, str]) -> bool:
    """Whether a run with these tags is to stop: it is asked to, and nobody wants to keep it."""
    return is_asked_to_stop(tags) and not is_kept(tags)


def should_stop(run_id: str | None = None) -> bool:
    """Whether a training is to end early; ask after each epoch, and leave the loop if so.

    It asks the tracking server at most every `ASK_AGAIN_S` seconds. A run that is told to stop gets
    the tag `mlflow_meta.stopped`, so that its last value is not learned as that of a whole
    training. A server that can't be asked stops nothing.

    Args:
        run_id: The run; None for the active one, or that of MLFLOW_RUN_ID.

    Raises:
        ValueError: If no run is named, active, or in MLFLOW_RUN_ID.

    Example:
        for epoch in range(100):
            mlflow.log_metric("val_loss", train_one_epoch(), step=epoch)
            if mlflow_meta.should_stop():
                break
    """
    active = mlflow.active_run()
    run_id = run_id or (active.info.run_id if active else os.environ.get("MLFLOW_RUN_ID"))
    if not run_id:
        raise ValueError(
            "`should_stop` needs a run: pass its id, or ask inside `with mlflow.start_run():`."
        )
    with _using_answers:
        asked, answer = _answers.get(run_id, (-float("inf"), False))
        if answer or time.monotonic() - asked < ASK_AGAIN_S:
            return answer
        answer = _ask(run_id)
        _answers[run_id] = (time.monotonic(), answer)
        return answer


def _ask(run_id: str) -> bool:
    client = MlflowClient()
    try:
        answer = is_to_stop(client.get_run(run_id).data.tags)
        if answer:
            client.set_tag(run_id, names.STOPPED, "true")
    except MlflowException as error:
        log.warning(
            "Whether %s is to stop can't be asked, so it goes on: %s",
            run_id,
            error,
            extra={"action": "not_asked", "run_id": run_id},
        )
        return False
    return answer
