"""How a param stands in the rows of a frame of trials."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_meta.space import Param

Vector = NDArray[np.float64]


def is_set(rows: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    """`(n,)` which rows have set the param."""
    column = f"params.{name}"
    if column not in rows:
        return np.zeros(len(rows), dtype=bool)
    return rows[column].notna().to_numpy(bool)


def plain(values: pd.Series) -> list[object]:
    """The values as Python has them."""
    return [v.item() if isinstance(v, np.generic) else v for v in values.astype(object)]


def unit(values: pd.Series, param: Param) -> Vector:
    """`(n,)` places on the param's scale; nan for what is no number."""
    numbers = pd.to_numeric(values.astype(object), errors="coerce").to_numpy(float, na_value=np.nan)
    return np.asarray(param.to_unit(numbers))
