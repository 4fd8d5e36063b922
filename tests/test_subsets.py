"""Params that list columns: harvested as one choice an item, suggested as the runs' own text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import add_run
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.predict import predict
from mlflow_meta.services.suggest import suggest
from mlflow_meta.services.train import train
from mlflow_meta.space import SearchSpace
from mlflow_meta.store import MlflowStore
from mlflow_meta.subsets import folded, items_of, list_of, unfolded

COLUMNS = ["bmi", "age", "mean radius", "s5", "bp (mm)"]
SPELLINGS = {
    "comma": ",".join,
    "comma and space": ", ".join,
    "semicolon": ";".join,
    "bar": "|".join,
    "plus": "+".join,
    "Python": lambda items: str(list(items)),
    "JSON": lambda items: json.dumps(list(items)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(chosen=st.lists(st.sets(st.sampled_from(range(5)), min_size=2), min_size=3, max_size=9))
def test_a_list_of_columns_is_spelt_again_as_it_was(spelling: str, chosen: list[set[int]]) -> None:
    texts = [SPELLINGS[spelling]([COLUMNS[i] for i in sorted(places)]) for places in chosen]
    flags = items_of("features", texts)
    if len(set(texts)) < 2:
        assert flags is None
        return
    assert flags is not None
    assert {list_of(flag) for flag in flags} == {"features"}
    for text, places in zip(texts, chosen, strict=True):
        config = {flag: text in used for flag, used in flags.items()}
        assert sum(config.values()) == len(places)
        again = folded({"lr": 0.1, **config, "depth": 3})
        assert list(again) == ["lr", "features", "depth"]
        assert set(SPELLINGS[spelling]([]).strip()) <= set(str(again["features"]))
        read = unfolded(again, flags)
        assert {flag: read[flag] == "True" for flag in flags} == config
        if len({tuple(sorted(p)) for p in chosen}) == len(set(texts)):  # no text in another order
            assert sorted(str(again["features"])) == sorted(text)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("features", ["all", "all"]),  # one value
        ("features", ["all", "few"]),  # no list at all
        ("features", ["a,a", "a,b"]),  # not a set
        ("optimizer", ["adam", "sgd,momentum"]),  # few texts under a name that says nothing
        ("layers", [f"{i},{2 * i}" for i in range(1, 40)]),  # numbers in an order
        ("steps", [f"a{i % 5},b{i % 7},c{i % 3}" for i in range(30)] + ["b1,a1"]),  # a sequence
        ("note", [f"tried {i}, and {i + 1}" for i in range(30)]),  # free texts
    ],
)
def test_other_texts_stay_what_they_are(name: str, texts: list[str]) -> None:
    assert items_of(name, texts) is None


def test_a_list_under_any_name_is_told_by_many_texts_of_few_items_in_one_order() -> None:
    rng = np.random.default_rng(0)
    texts = [",".join(np.array(COLUMNS)[rng.random(5) < 0.6]) or "bmi" for _ in range(60)]
    assert len(set(texts)) > 20
    flags = items_of("used", texts)
    assert flags is not None and list(flags) == [f"used{{{name}}}" for name in COLUMNS]


def test_a_flag_that_people_have_logged_themselves_is_written_as_it_is() -> None:
    config = {"feature.age": True, "features{age}": "yes"}
    assert folded(config) == config
    assert list_of("feature.age") is None


def test_a_space_of_flags_reads_the_text_that_a_run_has() -> None:
    flag = {"type": "categorical", "choices": [False, True]}
    space = SearchSpace.from_dict({"features{'a'}": flag, "features{'b'}": flag})
    assert space.parse({"features": "['b']"}) == {"features{'a'}": False, "features{'b'}": True}
    assert space.parse({"features": "b"}) == {}


@pytest.mark.slow
def test_the_suggested_columns_are_those_that_matter_in_the_words_of_the_runs(
    client: MlflowClient, sqlite_uri: str
) -> None:
    rng = np.random.default_rng(0)
    columns = np.array(["id", "x1", "x2", "x3", "n1", "n2", "n3"])
    worth = np.array([0.0, -1.0, -0.7, -0.5, 0.3, 0.3, 0.3])
    experiment = client.create_experiment("columns")
    tried = set()
    for _ in range(40):
        used = rng.random(7) < 0.5
        used[0] = True  # in all of them
        text = ", ".join(columns[used])
        tried.add(text)
        loss = 3 + worth @ used + rng.normal(0, 0.05)
        params = {"features": text, "lr": round(rng.uniform(0.01, 0.1), 3)}
        add_run(client, experiment, params=params, metrics={"val_loss": loss})
    store = MlflowStore(sqlite_uri)
    frame = harvest(store).dataset.frame
    assert "params.features" not in frame
    assert frame["params.features{, x1}"].dtype == "boolean"
    train(store, metric="val_loss", kinds=["linear"])
    found = suggest(store, "columns", n=3, rng=np.random.default_rng(0))
    for one, run_id in zip(found.items, found.run_ids, strict=True):
        params = client.get_run(run_id).data.params
        assert set(params) == {"features", "lr"}
        listed = params["features"].split(", ")
        assert listed[0] == "id" and listed == [name for name in columns if name in listed]
        assert one.config["features{, id}"] is True
        assert {"x1", "x2", "x3"} <= set(listed)
    best = client.get_run(found.run_ids[0]).data
    assert "n1" not in best.params["features"]
    assert best.params["features"] in best.tags["mlflow.note.content"]
    again = suggest(store, "columns", n=3, rng=np.random.default_rng(1))
    as_logged = predict(store, "columns", [folded(one.config) for one in found.items])
    by_flag = predict(store, "columns", [one.config for one in found.items])
    for said in (as_logged, by_flag):
        assert not said.unknown and not said.answers["warning"].str.contains("not given").any()
        means = said.answers["prediction"].to_numpy(float)
        np.testing.assert_allclose(means, [one.mean for one in found.items])
    before = {str(sorted(one.config.items())) for one in found.items}
    assert not before & {str(sorted(one.config.items())) for one in again.items}
