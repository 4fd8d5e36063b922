"""The loop as a DAG of Airflow, every night. It may be tried again: nothing is done twice.

The workers of Airflow have mlflow-meta, and `MLFLOW_TRACKING_URI` in their environment.
"""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CYCLE = "mlflow-meta cycle -e my-experiment --metric val_loss -n 5"

with DAG(
    "mlflow_meta",
    schedule="17 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
):
    # 75: another one is at work, or the server has not answered. That is no failure.
    BashOperator(task_id="cycle", bash_command=CYCLE, skip_on_exit_code=75)
