"""What any `MetaModel` must do."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from mlflow_meta.columns import frame_of
from mlflow_meta.metrics import spearman
from mlflow_meta.models import MetaModel
from mlflow_meta.space import SearchSpace

_SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "layers": {"type": "int", "low": 1, "high": 5, "when": {"model": ["mlp"]}},
        "depth": {"type": "categorical", "choices": [2, 4, 8], "when": {"model": ["tree"]}},
    }
)


def check_meta_model(make: Callable[[], MetaModel]) -> None:
    """Raise AssertionError at the first promise of `MetaModel` that `make()` breaks."""
    known, new = _trials(60, seed=0), _trials(30, seed=1)
    model = make()
    model.fit(known, _SPACE)
    _check_predictions(model, new)
    _check_intervals(model, new)
    _check_strange_rows(model, new)
    first = model.predict(new)

    again = make()
    again.fit(known, _SPACE)
    np.testing.assert_array_equal(first.mean, again.predict(new).mean, "fit must be repeatable")
    model.fit(known, _SPACE)
    np.testing.assert_array_equal(first.mean, model.predict(new).mean, "a second fit starts anew")

    loaded = make()
    loaded.load(model.save())
    same = loaded.predict(new)
    np.testing.assert_array_equal(first.mean, same.mean, "the mean must survive save and load")
    np.testing.assert_array_equal(first.std, same.std, "the std must survive save and load")
    for before, after in zip(model.interval(new), loaded.interval(new), strict=True):
        np.testing.assert_array_equal(before, after, "intervals must survive save and load")
    assert (loaded.cv_rmse, loaded.cv_spearman) == (model.cv_rmse, model.cv_spearman)

    _check_updates(loaded, known, new)

    assert model.cv_rmse < 0.9, f"beats the average (about 1), but cv_rmse is {model.cv_rmse:.2f}"
    for task, rows in new.groupby("task"):
        observed = rows["value"].to_numpy(float)
        found = spearman(observed, model.predict(rows).mean)
        assert found > 0.5, f"new trials of task {task} in their order, but spearman is {found:.2f}"


def _check_updates(model: MetaModel, known: pd.DataFrame, new: pd.DataFrame) -> None:
    """Of a fitted model that has learned from `known` alone."""
    before = model.predict(new).mean
    assert model.n_unseen(known) == 0, "what it was fitted on is nothing new"
    same = model.updated(known).predict(new).mean
    np.testing.assert_array_equal(before, same, "an update without news changes nothing")
    more = pd.concat([known, new.assign(task="new")], ignore_index=True)
    assert model.n_unseen(more) == len(new), "what it was not fitted on is new"
    updated, anew = model.updated(more), MetaModel(model.make_regressor, lambda *_: updated.encoder)
    anew.learn(more, _SPACE)
    assert updated.n_unseen(more) == 0, "an update takes all in"
    rows = new.assign(task="new")
    np.testing.assert_array_equal(
        updated.regressor.predict(updated.encoder.encode(rows)).mean,
        anew.regressor.predict(anew.encoder.encode(rows)).mean,
        "an update learns what a fit on all trials would",
    )
    after = model.predict(new).mean
    np.testing.assert_array_equal(before, after, "an update leaves the model as it was")


def _trials(n: int, *, seed: int) -> pd.DataFrame:
    """`n` trials of two tasks whose units differ a thousandfold; a bowl in log(lr), and a step."""
    rng = np.random.default_rng(seed)
    configs = _SPACE.sample(n, rng)
    tasks = np.where(np.arange(n) % 2 == 0, "small", "large")
    bowls = [
        (np.log10(float(config["lr"])) + 2.0) ** 2 + 2.0 * (config["model"] == "mlp")
        for config in configs
    ]
    values = (np.array(bowls) + rng.normal(0.0, 0.1, n)) * np.where(tasks == "small", 1.0, 1000.0)
    trials = frame_of(configs, _SPACE.names)
    return trials.assign(task=tasks, value=values, **{"dataset.rows": rng.integers(50, 5000, n)})


def _check_predictions(model: MetaModel, frame: pd.DataFrame) -> None:
    for predicted in (model.predict(frame), model.score(frame)):
        shapes = {predicted.mean.shape, predicted.std.shape}
        assert shapes == {(len(frame),)}, f"one mean and one std for each row, but got {shapes}"
        assert np.all(np.isfinite(predicted.mean)), "every mean is finite"
        assert np.all(np.isfinite(predicted.std) & (predicted.std >= 0)), "finite, and std >= 0"
    together = model.predict(frame).mean
    one_by_one = [model.predict(frame.iloc[[i]]).mean[0] for i in range(len(frame))]
    np.testing.assert_allclose(one_by_one, together, err_msg="rows must not see each other")
    turned = model.predict(frame.iloc[::-1]).mean[::-1]
    np.testing.assert_allclose(turned, together, err_msg="the order of rows must not matter")


def _check_intervals(model: MetaModel, frame: pd.DataFrame) -> None:
    mean = model.predict(frame).mean
    inner_low = inner_high = mean
    for level in (0.68, 0.8, 0.9):
        low, high = model.interval(frame, level)
        assert np.all((low <= mean) & (mean <= high)), f"the {level:.0%} interval has the mean"
        assert np.all((low <= inner_low) & (inner_high <= high)), "intervals widen with the level"
        assert np.all(np.isfinite(low) & np.isfinite(high)), "ends of an interval are finite"
        inner_low, inner_high = low, high


def _check_strange_rows(model: MetaModel, frame: pd.DataFrame) -> None:
    strange = {
        "an unknown task": frame.assign(task="never seen"),
        "no task": frame.drop(columns="task"),
        "a missing param": frame.drop(columns="params.lr"),
        "a missing context": frame.drop(columns="dataset.rows"),
        "an unknown category": frame.assign(**{"params.model": "transformer"}),
        "a column that was never seen": frame.assign(**{"hardware.gpu": "H100"}),
        "numbers far outside": frame.assign(**{"params.lr": 1e9, "dataset.rows": 1e12}),
    }
    for what, rows in strange.items():
        predicted = model.predict(rows)
        finite = np.isfinite(predicted.mean) & np.isfinite(predicted.std)
        assert finite.shape == (len(frame),) and finite.all(), f"{what} must be survived"
