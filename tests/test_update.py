"""Tests for updates of a meta-model: what is new is learned, and only that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mlflow_meta.columns import frame_of
from mlflow_meta.models import ZOO, MetaModel, source
from mlflow_meta.models.kernel import Hyperparameters, map_estimate
from mlflow_meta.models.source import Sources, learn_source
from mlflow_meta.proposal import choose_batch, tried_on
from mlflow_meta.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-5, "high": 1.0, "log": True},
        "model": {"type": "categorical", "choices": ["mlp", "tree", "svm"]},
        "layers": {"type": "int", "low": 1, "high": 6, "when": {"model": ["mlp"]}},
    }
)


def task(name: str, n: int, *, best: float = -3.0) -> pd.DataFrame:
    """`n` random trials: a bowl in log10(lr) around `best`, and trees are better than others."""
    configs = SPACE.sample(n, np.random.default_rng([n, *name.encode()]))
    values = [(np.log10(c["lr"]) - best) ** 2 + 2.0 * (c["model"] != "tree") for c in configs]
    return frame_of(configs, SPACE.names).assign(task=name, value=values)


OTHERS = pd.concat([task(f"t{i}", 25 + i) for i in range(5)], ignore_index=True)
MORE = pd.concat([OTHERS, task("new", 12), task("young", 4)], ignore_index=True)


@pytest.fixture(scope="module")
def champion() -> dict[str, bytes]:
    """The files of a model that has learned from `OTHERS`."""
    model = ZOO["transfer"]()
    model.fit(OTHERS, SPACE)
    return model.save()


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each search for hyperparameters had, with nothing kept from before."""
    sizes: list[int] = []

    def counted(X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> Hyperparameters:
        sizes.append(len(y))
        return map_estimate(X, y, groups)

    monkeypatch.setattr(source, "map_estimate", counted)
    source._learn_source.cache_clear()
    return sizes


def loaded(files: dict[str, bytes]) -> MetaModel:
    model = ZOO["transfer"]()
    model.load(files)
    return model


def from_scratch(trials: pd.DataFrame, like: MetaModel) -> MetaModel:
    """One that has learned from `trials`, with the features and the calibration of another."""
    model = MetaModel(ZOO["transfer"]().make_regressor, lambda *_: like.encoder)
    model.learn(trials, SPACE)
    model.calibration, model.signal = like.calibration, like.signal
    return model


def batch(model: MetaModel, trials: pd.DataFrame, name: str) -> list[dict]:
    options = {"task": name, "n": 4, "tried": tried_on(trials, name)}
    return choose_batch(model, SPACE, trials, rng=np.random.default_rng(2), **options)[0]


def test_a_loaded_model_does_not_learn_its_sources_again(
    champion: dict[str, bytes], learned: list[int]
) -> None:
    model = loaded(champion)
    for name in ("t0", "t4", "never seen"):
        model.predict(task(name, 3))
    assert learned == []
    assert loaded(model.save()).predict(task("t1", 3)).mean.tolist() == (
        model.predict(task("t1", 3)).mean.tolist()
    )
    assert learned == []


def test_an_update_of_one_task_does_not_learn_the_others_again(
    champion: dict[str, bytes], learned: list[int]
) -> None:
    grown = pd.concat([OTHERS, task("t0", 9, best=-1.0)], ignore_index=True)
    updated = loaded(champion).updated(grown)
    updated.predict(task("t0", 3))
    assert learned == [25 + 9]  # its own length scales
    updated.predict(task("t3", 3))  # of which it is a source
    assert learned == [25 + 9]
    again = loaded(updated.save()).updated(MORE)  # t0 as it was before, and two tasks more
    again.predict(task("young", 3))
    assert learned[1:] == [25, 12]


@pytest.mark.parametrize("name", ["t0", "new", "young", "never seen"])
def test_an_updated_model_suggests_what_one_does_that_has_learned_from_scratch(
    champion: dict[str, bytes], name: str
) -> None:
    updated = loaded(champion).updated(MORE)
    source._learn_source.cache_clear()
    anew = from_scratch(MORE, updated)
    for ours, theirs in zip(updated.predict(MORE).mean, anew.predict(MORE).mean, strict=True):
        assert ours == theirs
    assert batch(updated, MORE, name) == batch(anew, MORE, name)


def test_an_update_keeps_features_calibration_and_scores(champion: dict[str, bytes]) -> None:
    model = loaded(champion)
    strange = MORE.assign(**{"params.dropout": 0.5, "hardware.gpu": "H100"})
    updated = model.updated(strange)
    assert updated.encoder.columns == model.encoder.columns
    assert updated.encoder.tasks == (*model.encoder.tasks, "new", "young")
    assert updated.calibration == model.calibration
    for name in ("cv_rmse", "cv_spearman", "signal"):
        assert getattr(updated, name) == getattr(model, name)
    assert updated.scale_of("new").best == MORE.query("task == 'new'")["value"].min()
    plain = model.updated(MORE)
    assert updated.predict(strange).mean.tolist() == plain.predict(MORE).mean.tolist()


def test_what_is_unseen_is_told_by_task_and_value(champion: dict[str, bytes]) -> None:
    model = loaded(champion)
    assert model.n_unseen(OTHERS) == model.n_unseen(OTHERS.sample(frac=0.5, random_state=0)) == 0
    assert model.n_unseen(MORE) == 16
    twice = pd.concat([OTHERS, OTHERS.head(3)], ignore_index=True)
    assert model.n_unseen(twice) == 3
    assert model.n_unseen(OTHERS.assign(task="t0")) == len(OTHERS) - 25


@pytest.mark.parametrize("kind", [k for k in ZOO if k != "transfer"])
def test_the_other_kinds_are_fitted_again_once(kind: str) -> None:
    model = ZOO[kind]()
    model.fit(OTHERS, SPACE)
    n_fits = 0
    make: Callable[[], object] = model.make_regressor

    def counted() -> object:
        nonlocal n_fits
        n_fits += 1
        return make()

    model.make_regressor = counted
    updated = model.updated(MORE)
    assert n_fits == 1
    assert updated.n_unseen(MORE) == 0
    assert np.all(np.isfinite(updated.predict(MORE).mean))


def test_known_hyperparameters_make_the_source_that_would_be_learned() -> None:
    rng = np.random.default_rng(0)
    X, y, groups = rng.random((40, 3)), rng.normal(size=40), np.arange(3)
    first = Sources()
    learned = first.learn(X, y, groups)
    assert learned is learn_source(X, y, groups)
    second = Sources.load(first.save())
    assert second.kernels.keys() == first.kernels.keys()
    again = second.learn(X, y, groups)
    assert again is not learned
    assert again.alpha.tolist() == learned.alpha.tolist()
    assert again.kernel.scales.tolist() == learned.kernel.scales.tolist()
    assert Sources.load(Sources().save()).kernels == {}
