"""The rest of the way: how far curves go on from a look, by how far other curves went.

n    finished curves that go on after the look
x    (n, 3) what each shows at the look, see `Curve.shown`: last, best, fell

    rest = end - last = b0 + b . x + noise,    E|noise| = a0 + a1 |fell|,  a >= 0

b by ridge regression, a by non-negative least squares on the errors of curves left out one at a
time, which a linear regression has in closed form (PRESS; Allen, 1974). What is unlike the curves
that were seen is less certain: the error of a prediction is that of the noise, times
sqrt(1 + leverage of x).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

RIDGE = 1.0  # curves' worth of evidence for b = 0, on columns of unit variance
MAX_LEVERAGE = 0.95  # a curve that the fit hangs on alone tells nothing of its error
_LAST, _FELL = 0, 2


@dataclass(frozen=True, slots=True)
class Rest:
    """The regression at one look.

    Attributes:
        center: `(3,)` mean of x.
        spread: `(3,)` standard deviation of x, > 0.
        b: `(4,)` b0 and b.
        a: `(2,)` a0 and a1.
        inverse: `(4, 4)` of the regression's normal equations.
        floor: No noise is taken for smaller; > 0.
        left_out: `(n,)` each curve's end as the others predict it.
        scale: `(n,)` its expected error, > 0.
    """

    center: Vector
    spread: Vector
    b: Vector
    a: Vector
    inverse: Matrix
    floor: float
    left_out: Vector
    scale: Vector

    @classmethod
    def learn(cls, x: Matrix, ends: Vector, floor: float) -> Rest:
        """From what curves show at a look, `(n, 3)`, and their ends, `(n,)`."""
        rest = ends - x[:, _LAST]
        center, spread = x.mean(axis=0), np.maximum(x.std(axis=0), floor)
        design = np.column_stack([np.ones(len(x)), (x - center) / spread])
        inverse = np.linalg.inv(design.T @ design + np.diag([1e-6, RIDGE, RIDGE, RIDGE]))
        b = inverse @ design.T @ rest
        leverage = np.minimum(np.einsum("ij,jk,ik->i", design, inverse, design), MAX_LEVERAGE)
        errors = (rest - design @ b) / (1.0 - leverage)
        a, _ = nnls(_noise(x), np.abs(errors))
        # To the others alone, a curve has the leverage h / (1 - h).
        scale = np.hypot(_noise(x) @ a, floor) * np.sqrt(1.0 + leverage / (1.0 - leverage))
        return cls(center, spread, b, a, inverse, floor, ends - errors, scale)

    def end(self, x: Vector) -> tuple[float, float]:
        """The expected end of a curve that shows x, `(3,)`, and its expected error."""
        row = np.concatenate([[1.0], (x - self.center) / self.spread])
        noise = np.hypot((_noise(x[None]) @ self.a)[0], self.floor)
        return float(x[_LAST] + row @ self.b), float(noise * np.sqrt(1 + row @ self.inverse @ row))


def _noise(x: Matrix) -> Matrix:
    return np.column_stack([np.ones(len(x)), np.abs(x[:, _FELL])])
