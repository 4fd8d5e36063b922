"""The loop as a DAG of Airflow, every night. Each step may be tried again: nothing is done twice.

The workers of Airflow have mlflow-meta, and `MLFLOW_TRACKING_URI` in their environment.
"""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

STEPS = {
    "harvest": "mlflow-meta harvest",
    "train": "mlflow-meta train --metric val_loss",
    "suggest": "mlflow-meta suggest -e my-experiment --metric val_loss -n 5",
}

with DAG(
    "mlflow_meta",
    schedule="17 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
) as dag:
    # 3: train is refused, for runs are too few. 75: another one is at work. Both are no failures.
    harvest, train, suggest = (
        BashOperator(task_id=name, bash_command=command, skip_on_exit_code=[3, 75])
        for name, command in STEPS.items()
    )
    harvest >> train >> suggest
