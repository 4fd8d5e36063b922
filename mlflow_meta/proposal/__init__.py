"""The heart: past trials and a search space in, the configurations to try next out. No MLflow.

A search under the expected improvement finds candidates. A model that has a formula is searched by
it too, exactly where that is feasible, and so are draws of what it holds for possible. Of all these
the batch is chosen one by one, by what each is expected to add to the task's best trials and to the
choices before it; the best prediction that there is belongs to it, less the columns of a list that
it can do without.

proposing   trials and a space in, configurations out
choosing    a batch by a fitted model
front       a batch for several objectives
sparing     fewer columns of a list, equally good
candidates  what may enter a batch
task        what a task is told by
"""

from mlflow_meta.proposal.candidates import spread_out
from mlflow_meta.proposal.choosing import N_DRAWS, N_RIVALS, choose_batch
from mlflow_meta.proposal.front import choose_front
from mlflow_meta.proposal.proposing import propose
from mlflow_meta.proposal.task import context_of, in_context, tried_on

__all__ = [
    "N_DRAWS",
    "N_RIVALS",
    "choose_batch",
    "choose_front",
    "context_of",
    "in_context",
    "propose",
    "spread_out",
    "tried_on",
]
