"""Outlook: where a running training will end, and whether it can still become the best."""

from mlflow_meta.outlook.curve import Curve
from mlflow_meta.outlook.outlooks import MIN_CURVES, Outlook, Outlooks, Standing

__all__ = ["MIN_CURVES", "Curve", "Outlook", "Outlooks", "Standing"]
