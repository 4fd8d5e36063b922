"""The meta-dataset: every run that teaches something, as one frame.

Columns keep the spelling of `mlflow.search_runs`, so that users know them already:

run_id, experiment_id, experiment, status    text
start_time                                   UTC timestamp
duration_s                                   seconds of training, without the time in a queue
task                                         which runs are comparable with each other
params.<name>                                typed once, by column: Int64, float64, boolean, string
distribution.<name>                          text: what that param was drawn from, where Optuna's
                                             callback or storage says it
metrics.<name>                               float64, the last value logged
step.<metric>                                Int64, the step of that value; where some step is not 0
min.<metric>, max.<metric>                   float64, of its whole curve, where that was harvested
                                             (`harvest --curves`)
min_step.<metric>, max_step.<metric>         Int64, the first step at which that was reached; where
                                             some step is not 0
tags.<name>                                  text; the tags that users set, not MLflow's own
hardware.<name>                              what it ran on, text or number; under one name from any
                                             source: cpu_model, cpu_cores, memory_gb, gpu_model,
                                             gpu_count, gpu_memory_gb, accelerator, instance_type,
                                             machine
dataset.name, dataset.digest, dataset.source text
dataset.rows, dataset.columns                numbers
dataset.feature.<name>                       whether the run used that column of its data set
code.<name>                                  text: commit, branch, repository, versions of
                                             libraries; says where a result is from, no feature
"""

from mlflow_meta.dataset.meta_dataset import DEFAULT_TASKS, MetaDataset
from mlflow_meta.dataset.objectives import MetricProposal, finite

__all__ = ["DEFAULT_TASKS", "MetaDataset", "MetricProposal", "finite"]
