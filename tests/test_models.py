"""Tests for models/: the shipped contract over the whole zoo, and what holds it together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor

from mlflow_meta.errors import NothingToLearn
from mlflow_meta.metrics import spearman
from mlflow_meta.models import MIN_TRIALS, ZOO, MetaModel, Prediction, extra_trees, transfer
from mlflow_meta.models.baselines import BASELINES
from mlflow_meta.models.blend import Blend
from mlflow_meta.models.calls import Calls
from mlflow_meta.models.choice import compare, score_table
from mlflow_meta.models.cross_validation import (
    each_held_out,
    folds_across,
    folds_within,
    predicting,
)
from mlflow_meta.models.extra_trees import N_TREES, ExtraTrees
from mlflow_meta.models.gaussian_process import GaussianProcess
from mlflow_meta.models.task_prior import TaskPosterior
from mlflow_meta.models.transfer import Drawn, OneTask, Transfer
from mlflow_meta.models.trees import FEW, BoostedTrees
from mlflow_meta.space import SearchSpace
from mlflow_meta.testing import check_meta_model

SPACE = SearchSpace.from_dict({"x": {"type": "float", "low": 0.0, "high": 1.0}})


def bowl(n: int, task: str = "a", best_x: float = 0.3) -> pd.DataFrame:
    x = np.random.default_rng(len(task) + n).random(n)
    return pd.DataFrame({"task": task, "value": (x - best_x) ** 2, "params.x": x})


class OnlyTheAverage:
    """A regressor that keeps the protocol, and learns nothing."""

    def fit(
        self, X: NDArray[np.float64], y: NDArray[np.float64], *, groups: object, seed: int
    ) -> None:
        self.mean, self.std = float(y.mean()), float(y.std())

    def predict(self, X: NDArray[np.float64]) -> Prediction:
        return Prediction(np.full(len(X), self.mean), np.full(len(X), self.std))

    def save(self) -> dict[str, bytes]:
        return {"average.json": json.dumps([self.mean, self.std]).encode()}

    def load(self, files: Mapping[str, bytes]) -> None:
        self.mean, self.std = json.loads(files["average.json"])


class SeesOtherRows(OnlyTheAverage):
    def predict(self, X: NDArray[np.float64]) -> Prediction:
        bowl_in_lr = (X[:, 0] - 0.5) ** 2  # right for the contract's trials
        return Prediction(bowl_in_lr - bowl_in_lr.mean(), np.ones(len(X)))


class ForgetsItsNoise(OnlyTheAverage):
    def load(self, files: Mapping[str, bytes]) -> None:
        super().load(files)
        self.std = 7.0


@pytest.mark.parametrize("name", ZOO)
def test_meta_model_contract(name: str) -> None:
    check_meta_model(ZOO[name])


def test_transfer_without_a_column_for_the_task_keeps_the_contract() -> None:
    check_meta_model(lambda: MetaModel(OneTask))


@pytest.mark.parametrize(
    ("regressor", "complaint"),
    [
        (OnlyTheAverage, "beats the average"),
        (SeesOtherRows, "rows must not see each other"),
        (ForgetsItsNoise, "survive save and load"),
    ],
)
def test_the_contract_refuses_a_model_that_breaks_it(
    regressor: Callable[[], OnlyTheAverage], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_meta_model(lambda: MetaModel(regressor))


@pytest.mark.parametrize("name", ZOO)
def test_saved_files_are_plain_text_or_arrays_without_pickle(name: str) -> None:
    model = ZOO[name]()
    model.fit(bowl(12), SPACE)
    for file, content in model.save().items():
        assert file.endswith((".json", ".npz", ".txt"))
        assert file.endswith(".npz") or content.decode().isprintable() or "\n" in content.decode()


@pytest.mark.parametrize("name", ZOO)
def test_tasks_of_one_trial_among_others_teach_without_a_warning(name: str) -> None:
    singles = [bowl(1, task=f"single {i}") for i in range(MIN_TRIALS - 2)]
    model = ZOO[name]()
    trials = pd.concat([bowl(2), *singles], ignore_index=True)
    model.fit(trials, SPACE)
    assert np.all(np.isfinite(model.predict(trials).mean))


@pytest.mark.parametrize("n", [0, 1, MIN_TRIALS - 1])
def test_too_few_trials_say_how_many_more_are_needed(n: int) -> None:
    with pytest.raises(NothingToLearn, match=f"Train {MIN_TRIALS - n} more"):
        ZOO["linear"]().fit(bowl(n), SPACE)


def test_trials_that_are_all_equally_good_teach_nothing() -> None:
    trials = pd.concat([bowl(9).assign(value=1.0), bowl(9, task="b").assign(value=2.0)])
    with pytest.raises(NothingToLearn, match="All 18 runs are equally good within their task"):
        ZOO["linear"]().fit(trials, SPACE)


def test_a_missing_column_and_a_value_that_is_not_finite_are_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"\['task'\] is missing"):
        ZOO["linear"]().fit(bowl(9).drop(columns="task"), SPACE)
    with pytest.raises(ValueError, match="must be finite"):
        ZOO["linear"]().fit(bowl(9).assign(value=[np.nan, *range(8)]), SPACE)


def test_an_unknown_task_is_put_on_the_scale_of_all_trials_together() -> None:
    low, high = bowl(20), bowl(20, task="b")
    model = ZOO["linear"]()
    model.fit(pd.concat([low, high.assign(value=high["value"] + 100.0)]), SPACE)
    everything = model.scale_of("never seen").values
    assert (everything.min(), everything.max()) == (low["value"].min(), high["value"].max() + 100.0)


def test_every_fold_within_tasks_has_a_fifth_of_every_task() -> None:
    tasks = np.array(["a"] * 23 + ["b"] * 10, dtype=object)
    folds = folds_within(tasks)
    for task, n in (("a", 23), ("b", 10)):
        sizes = np.bincount(folds[tasks == task], minlength=5)
        assert sizes.sum() == n
        assert sizes.max() - sizes.min() <= 1


def test_folds_across_never_cut_a_task() -> None:
    tasks = np.array(list("abcdefg") * 3, dtype=object)
    folds = folds_across(tasks)
    assert len(set(folds)) == 5
    assert all(len(set(folds[tasks == task])) == 1 for task in set(tasks))


def test_no_trial_is_predicted_by_a_regressor_that_has_seen_it() -> None:
    class Remembers(OnlyTheAverage):
        def fit(
            self, X: NDArray[np.float64], y: NDArray[np.float64], *, groups: object, seed: int
        ) -> None:
            self.seen = set(X[:, 0])

        def predict(self, X: NDArray[np.float64]) -> Prediction:
            unseen = np.array([float(x not in self.seen) for x in X[:, 0]])
            return Prediction(unseen, np.full(len(X), float(len(self.seen))))

    X = np.arange(10.0)[:, None]
    splits = each_held_out(np.arange(10) % 5)
    with Calls() as calls:
        predicted = predicting(calls, Remembers, X, X[:, 0], np.zeros(1, dtype=int), splits)()
    assert predicted.mean.tolist() == [1.0] * 10
    assert predicted.std.tolist() == [8.0] * 10


def test_compare_puts_the_smallest_error_first_and_reports_each_name_once() -> None:
    seen: list[str] = []
    candidates = compare(bowl(30), SPACE, progress=seen.append)
    others = [c.rmse for c in candidates if c.name != "transfer"]
    assert others == sorted(others)
    assert {c.name for c in candidates} == set(ZOO)
    assert seen == [f"cross-validating {name}" for name in ZOO]


def test_transfer_is_preferred_until_another_is_clearly_better() -> None:
    noise = np.random.default_rng(0).normal(size=(60, 2))
    unclear = pd.DataFrame({"task": "a", "value": noise[:, 0], "params.x": noise[:, 1]})
    assert compare(unclear, SPACE)[0].name == "transfer"
    rows = np.random.default_rng(0).integers(1, 1000, size=60)  # all that matters is the context
    told = unclear.assign(value=rows * 1.0, **{"dataset.rows": rows})
    assert compare(told, SPACE)[0].name != "transfer"


def scores_of(trials: pd.DataFrame, name: str = "linear") -> pd.DataFrame:
    """What `score_table` says, by model."""
    return score_table(compare(trials, SPACE, names=[name]), trials).set_index("model")


def test_new_tasks_are_ranked_by_what_other_tasks_taught() -> None:
    trials = pd.concat([bowl(20), bowl(20, task="bb"), bowl(20, task="ccc")], ignore_index=True)
    assert scores_of(trials).loc["linear", "spearman_new_task"] > 0.9
    contrary = trials.assign(value=trials["value"].where(trials["task"] != "a", -trials["value"]))
    assert scores_of(contrary).loc["linear", "spearman_new_task"] < 0.5


def test_later_trials_are_ranked_by_what_earlier_ones_taught() -> None:
    trials = bowl(60)
    assert scores_of(trials).loc["linear", "spearman_later"] > 0.9
    turned = trials.assign(value=trials["value"].where(np.arange(60) < 24, -trials["value"]))
    table = scores_of(turned)
    assert table.loc["linear", "spearman_later"] < 0.5
    assert table.loc["linear", "spearman"] > table.loc["linear", "spearman_later"]


def test_an_unknown_kind_of_model_is_told_by_its_name() -> None:
    with pytest.raises(ValueError, match="no meta-model 'magic'; there are linear, "):
        compare(pd.DataFrame(), SPACE, names=["linear", "magic"])


def test_a_model_is_compared_with_what_anyone_can_tell_without_one() -> None:
    trials = pd.concat([bowl(40), bowl(40, task="bb")], ignore_index=True)
    table = scores_of(trials)
    assert list(table.index) == ["linear", *BASELINES]
    assert table.loc["mean", "rmse"] == pytest.approx(1.0, abs=0.1)
    assert max(table.loc["linear", "rmse"], table.loc["nearest run", "rmse"]) < 0.5
    assert table.loc["nearest run", "spearman"] > 0.5
    assert table.loc["mean"].drop("rmse").isna().all()


def test_with_one_task_nothing_is_known_of_new_tasks() -> None:
    assert scores_of(bowl(20))["spearman_new_task"].isna().all()


@pytest.mark.parametrize("name", ZOO)
def test_a_task_beside_which_there_is_hardly_another_is_no_reason_to_fail(name: str) -> None:
    trials = pd.concat([bowl(15), bowl(1, task="b")], ignore_index=True)
    assert np.isnan(scores_of(trials, name).loc[name, "spearman_new_task"])


def test_a_prediction_has_one_std_for_each_mean() -> None:
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        Prediction(np.zeros(2), np.zeros(3))


def test_trees_of_many_rows_draw_rows_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_trees, "MAX_ROWS", 60)
    X = np.random.default_rng(0).random((5000, 3))
    y = (X[:, 0] > 0.5) + X[:, 1] ** 2
    trees = ExtraTrees()
    trees.fit(X[:4000], y[:4000], groups=np.arange(3), seed=0)
    found = trees.predict(X[4000:])
    assert spearman(y[4000:], found.mean) > 0.9
    assert 0 < found.std.mean() < 0.5
    assert len(trees.save()["extra_trees.npz"]) < 400_000


def test_the_trees_say_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.random((120, 6)).round(1), rng.normal(size=120)
    ours = ExtraTrees()
    ours.fit(X, y, groups=np.arange(6), seed=3)
    theirs = ExtraTreesRegressor(N_TREES, bootstrap=True, random_state=3).fit(X, y)
    new = rng.random((50, 6)).round(1)
    by_tree = np.stack([tree.predict(new) for tree in theirs.estimators_])
    np.testing.assert_allclose(ours.predict(new).mean, by_tree.mean(axis=0))
    assert np.all(ours.predict(new).std >= by_tree.std(axis=0))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_trees_draw_the_mean_and_every_draw_towards_them_by_their_share(share: float) -> None:
    rng = np.random.default_rng(0)
    X, groups = rng.random((30, 2)), np.arange(2)
    y = np.floor(5 * X[:, 0]) % 2 + X[:, 1]
    smooth, trees = TaskPosterior([], X, y, groups, seed=0), ExtraTrees()
    trees.fit(X, y, groups=groups, seed=0)
    both, at = Drawn(smooth, lambda at: trees.predict(at).mean, share), rng.random((20, 2))
    expected = (1 - share) * smooth.predict(at).mean + share * trees.predict(at).mean
    np.testing.assert_allclose(both.predict(at).mean, expected)
    draws = both.sample(at, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), expected, atol=0.02)
    assert np.all(both.predict(at).std >= smooth.predict(at).std)


def two_tasks() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs as `Encoder.by_task` makes them, 30 of one task and 6 of another; and scores."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.repeat([0.0, 1.0], [30, 6]), rng.random((36, 2))])
    return X, (X[:, 1] - 0.3) ** 2 + 0.2 * X[:, 0] * X[:, 2]


def fitted_transfer() -> Transfer:
    model = Transfer()
    model.fit(*two_tasks(), groups=np.array([-1, 0, 1]), seed=0)
    return model


def test_half_of_what_is_said_of_a_task_with_neighbours_is_by_all_tasks_pooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, means = two_tasks()[0][-6:] * [1.0, 0.9, 0.9], {}
    for share in (0.0, transfer.POOLED, 1.0):
        monkeypatch.setattr(transfer, "POOLED", share)
        means[share] = fitted_transfer().predict(at).mean
    assert np.abs(means[0.0] - means[1.0]).max() > 1e-3
    np.testing.assert_allclose(means[0.5], (means[0.0] + means[1.0]) / 2)


def test_a_loaded_model_knows_the_hyperparameters_of_all_tasks_pooled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, again, at = fitted_transfer(), Transfer(), two_tasks()[0]
    files = model.save()
    monkeypatch.delattr(transfer, "pooled_kernel")
    again.load(files)
    np.testing.assert_array_equal(again.predict(at).mean, model.predict(at).mean)


def test_a_blend_is_the_weighted_mixture_of_its_members() -> None:
    X, y = two_tasks()
    weights = {GaussianProcess: 0.8, ExtraTrees: 0.2}
    blend = Blend(weights)
    members = [blend, *(make() for make in weights)]
    for model in members:
        model.fit(X, y, groups=np.arange(3), seed=0)
    found, one, other = (model.predict(X) for model in members)
    mean = 0.8 * one.mean + 0.2 * other.mean
    square = 0.8 * (one.std**2 + one.mean**2) + 0.2 * (other.std**2 + other.mean**2)
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(found.std**2, square - mean**2)


@pytest.mark.parametrize("n", [12, 80])
def test_few_rows_are_answered_without_lightgbm_to_its_last_bit(n: int) -> None:
    rng = np.random.default_rng(n)
    X, many = rng.random((n, 5)), rng.random((FEW + 1, 5)) * 3 - 1
    model = BoostedTrees()
    model.fit(X, X[:, 0] + rng.normal(size=n), groups=np.arange(5), seed=0)
    whole, part = model.predict(many), model.predict(many[:FEW])
    np.testing.assert_array_equal(part.mean, whole.mean[:FEW])
    np.testing.assert_array_equal(part.std, whole.std[:FEW])
