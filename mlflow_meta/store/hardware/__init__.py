"""What a run says of the hardware that it ran on, in one spelling.

Runs say it in five ways. Where they differ, the first of these counts: our plugin's tags, MLflow's
system metrics, Databricks' tags, Ray's tags, and the tags that people invent. What nobody can make
sense of (a tag `device` that says "kitchen") is left out.

keys    what a tag tells by its key
values  what its value says
load    what the machine's load, MLflow's `system/*`, tells of the machine
"""

from mlflow_meta.store.hardware.facts import hardware_of, read_fact
from mlflow_meta.store.hardware.keys import is_hardware

__all__ = ["hardware_of", "is_hardware", "read_fact"]
