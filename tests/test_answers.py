"""What a registered model answers, held against the truth, the model itself, and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from served_history import history, packed

from mlflow_meta.served import answers as told_by
from mlflow_meta.served.answers import COLUMNS, Answers
from mlflow_meta.served.packed import Packed
from mlflow_meta.served.remember import learn_duration, remember
from mlflow_meta.served.rows import Encoding
from mlflow_meta.space import SearchSpace, infer
from mlflow_meta.trials import Direction

TRIALS = history(n_each=30, tasks=3)
NEW = history(n_each=30, tasks=3, seed=1)
ROW = {
    "task": "sweep-1", "model": "mlp", "lr": 0.03, "epochs": 20, "units": 64, "dropout": 0.1,
    "batch_size": 64, "nesterov": True,
}  # fmt: skip


def answering(
    it: Packed, trials: pd.DataFrame = TRIALS, space: SearchSpace | None = None
) -> Answers:
    return Answers(it, remember(trials, space or infer(TRIALS).space))


@pytest.fixture(scope="module", params=["transfer", "lightgbm", "network", "linear"])
def it(request: pytest.FixtureRequest) -> Packed:
    return packed(TRIALS, request.param)


@pytest.fixture(scope="module")
def transfer() -> Answers:
    return answering(packed(TRIALS, "transfer"))


@pytest.fixture(scope="module")
def lightgbm() -> Answers:
    return answering(packed(TRIALS, "lightgbm"))


def raw(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials as rows of raw params."""
    kept = [c for c in trials if c == "task" or c.startswith(("params.", "hardware.", "dataset."))]
    return trials[kept].rename(columns=lambda name: name.removeprefix("params."))


def one(answers: Answers, **changed: object) -> dict[str, object]:
    row = pd.DataFrame([{k: v for k, v in {**ROW, **changed}.items() if v is not ...}])
    return dict(answers.of(row).to_dict("records")[0])


def test_the_answers_are_those_of_the_meta_model(it: Packed) -> None:
    answers = answering(it).of(raw(NEW))
    predicted = it.model.predict(NEW)
    expected = {"prediction": predicted.mean, "std": predicted.std}
    for level in (80, 90):
        ends = it.model.interval(NEW, level / 100)
        expected |= dict(zip([f"low_{level}", f"high_{level}"], ends, strict=True))
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name].astype(float), values, rtol=1e-9)
    assert list(answers) == list(COLUMNS)


def test_a_metric_to_be_maximised_is_told_in_its_own_direction(it: Packed) -> None:
    down = answering(it).of(raw(NEW))
    up = answering(packed(TRIALS, it.kind, Direction.MAXIMIZE)).of(raw(NEW))
    for name, mirrored in {
        "prediction": "prediction", "best_known": "best_known", "low_80": "high_80",
        "high_80": "low_80", "low_90": "high_90", "high_90": "low_90",
    }.items():  # fmt: skip
        np.testing.assert_array_equal(up[name], -down[mirrored])
    for name in ("std", "chance_to_beat_best", "duration_s", "distance"):
        np.testing.assert_array_equal(up[name], down[name])
    for answer in (up, down):
        assert list(answer) == list(COLUMNS)
        order = ["low_90", "low_80", "prediction", "high_80", "high_90"]
        assert (np.diff(answer[order], axis=1) >= 0).all()
    assert up["best_known"].max() == -TRIALS.query("task == 'sweep-0'")["value"].min()
    # A better prediction has the better chance, in either direction.
    own = up[(NEW["task"] == "sweep-0").to_numpy()]
    assert own["chance_to_beat_best"].corr(own["prediction"], method="spearman") > 0.5


def test_the_chance_to_beat_the_best_is_that_of_draws_of_the_prediction(it: Packed) -> None:
    answers = answering(it).of(raw(NEW))
    score = it.model.score(NEW)
    rng = np.random.default_rng(0)
    for i in range(0, len(NEW), 7):
        scale = it.model.scales[NEW["task"][i]]
        values = scale.to_value(rng.normal(score.mean[i], score.std[i], 20_000))
        assert answers["chance_to_beat_best"][i] == pytest.approx(
            (values < scale.best).mean(), abs=0.02
        )


def test_what_is_already_perfect_is_beaten_by_nobody() -> None:
    trials = TRIALS.assign(value=np.maximum(TRIALS["value"] - 0.5, 0.0))
    answers = answering(packed(trials, "linear"), trials)
    assert trials.query("task == 'sweep-0'")["value"].min() == 0
    assert one(answers, task="sweep-0")["chance_to_beat_best"] == 0


def test_a_new_task_has_no_best_and_no_chance_and_says_so(it: Packed) -> None:
    answer = one(answering(it), task="unheard of")
    assert answer["best_known"] is None and answer["chance_to_beat_best"] is None
    assert answer["warning"] == "no trial of the task 'unheard of' is known"
    assert answer["extrapolates"] and "best known trial of 'sweep-" in str(answer["reasons"])
    assert np.isfinite(float(str(answer["prediction"])))


def test_texts_are_answered_as_the_numbers_that_they_spell(it: Packed) -> None:
    answers = answering(it)
    rows = raw(NEW).astype(object)
    texts = rows.apply(lambda column: column.map(lambda v: None if pd.isna(v) else str(v)))
    numbers = answers.of(rows)
    pd.testing.assert_frame_equal(answers.of(texts), numbers)
    alone = [answers.of(texts.iloc[[i]]) for i in range(0, 90, 9)]
    for name in ("warning", "reasons", "distance", "duration_s", "extrapolates"):
        assert [a[name].iloc[0] for a in alone] == pytest.approx(numbers[name][::9].tolist())


def test_a_context_that_is_not_said_is_that_of_the_task(lightgbm: Answers) -> None:
    bare = one(lightgbm)
    assert bare == one(lightgbm, **{"dataset.rows": 2000})
    assert bare["duration_s"] != one(lightgbm, **{"dataset.rows": 1000})["duration_s"]


def test_durations_are_closer_than_the_mean_of_all_is() -> None:
    answers = answering(packed(TRIALS, "linear")).of(raw(NEW))
    truth = np.log(NEW["duration_s"].to_numpy())
    naive = np.abs(truth - np.log(TRIALS["duration_s"]).mean()).mean()
    ours = np.abs(truth - np.log(answers["duration_s"].astype(float))).mean()
    assert ours < 0.5 * naive


def test_durations_that_nothing_tells_are_the_mean_and_unknown_ones_are_none() -> None:
    rng = np.random.default_rng(0)
    X, groups = rng.random((60, 3)), np.arange(3)
    seconds = np.exp(rng.normal(3, 1, 60))
    said = learn_duration(X, groups, seconds).seconds(X)
    np.testing.assert_allclose(said, np.exp(np.log(seconds).mean()))
    assert np.isnan(learn_duration(X, groups, np.full(60, np.nan)).seconds(X)).all()
    for trials in (TRIALS.drop(columns="duration_s"), TRIALS.assign(duration_s=np.nan)):
        assert one(answering(packed(TRIALS, "linear"), trials))["duration_s"] is None


def test_the_distance_is_a_rank_among_those_of_the_trials(transfer: Answers) -> None:
    near = transfer._memory.nearness
    of_trials = transfer.of(raw(TRIALS))["distance"]
    assert of_trials.tolist() == [0.0] * len(TRIALS)
    rows = transfer._reader.read(raw(NEW))
    X = transfer._seen.of(rows, transfer._encoding.of(rows))
    assert X.tolist() == Encoding(transfer._memory.encoder).of(rows).tolist()
    asked = X[:, near.columns] * near.weights
    seen = transfer._memory.encoder.encode(TRIALS)[:, near.columns] * near.weights
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)
    np.fill_diagonal(apart, np.inf)
    away = np.linalg.norm(asked[:, None] - seen, axis=2).min(axis=1)
    expected = (apart.min(axis=1) < away[:, None]).mean(axis=1)
    np.testing.assert_allclose(transfer.of(raw(NEW))["distance"], expected, atol=1e-9)


def test_the_next_point_of_a_grid_is_near_and_one_beyond_is_not() -> None:
    grid = [(a, b) for a in range(10) for b in range(10) if (a, b) != (4, 7)]
    trials = pd.DataFrame(grid, columns=["params.a", "params.b"]).assign(task="t")
    trials["value"] = 0.1 * (trials["params.a"] - 3.0) ** 2 + trials["params.b"]
    answers = answering(packed(trials, "linear"), trials, infer(trials).space)
    left_out, beyond = answers.of(pd.DataFrame([{"a": 4, "b": 7}, {"a": 4, "b": 40}])).itertuples()
    assert (left_out.distance, left_out.extrapolates, left_out.warning) == (0, False, "")
    assert (beyond.distance, beyond.extrapolates) == (1, True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 30.0}, "lr = 30 is outside"),
        ({"lr": "1e99"}, "lr = 1e+99 is outside"),
        ({"model": "transformer"}, "model = transformer is unknown"),
        ({"model": ["mlp"]}, "model = ['mlp'] is unknown"),
        ({"epochs": "many"}, "epochs = many is no number"),
        ({"epochs": True}, "epochs = True is no number"),
        ({"epochs": float("inf")}, "epochs = inf is not finite"),
        ({"epochs": 10**400}, "is not finite"),
        ({"nesterov": "perhaps"}, "nesterov = perhaps is unknown"),
        ({"task": "new\x1b[31m\n"}, "no trial of the task 'new [31m ' is known"),
    ],
)
def test_what_was_never_seen_is_said(
    transfer: Answers, changed: dict[str, object], said: str
) -> None:
    answer = one(transfer, **changed)
    assert said in str(answer["warning"]) and answer["extrapolates"] is True
    assert np.isfinite(float(str(answer["prediction"])))


def test_what_is_usual_is_not_warned_of(transfer: Answers) -> None:
    answer = one(transfer)
    assert answer["warning"] == "" and answer["extrapolates"] is False
    assert one(transfer, nesterov="true") == one(transfer, nesterov="True") == answer
    assert one(transfer, depth=None, seed=7) == one(transfer, depth=np.nan) == answer


def test_missing_columns_are_said_but_not_those_that_do_not_exist(transfer: Answers) -> None:
    assert one(transfer, lr=..., units=None)["warning"].endswith("not given: lr, units")  # type: ignore[attr-defined]
    assert one(transfer, model="tree", units=...)["warning"] == "not given: depth"
    nothing = transfer.of(pd.DataFrame([{}])).iloc[0]
    assert "no task is given: answered for 'sweep-" in nothing["warning"]
    assert nothing["extrapolates"]


def test_reasons_are_differences_that_the_model_itself_makes(it: Packed) -> None:
    answers = answering(it)
    best = TRIALS.loc[TRIALS.query("task == 'sweep-1'")["value"].idxmin()]
    config = {k: v for k, v in raw(TRIALS).loc[best.name].items() if not pd.isna(v)}
    same = answers.of(pd.DataFrame([config])).iloc[0]
    assert same["reasons"] == "the params are those of the best known trial"
    worse = answers.of(pd.DataFrame([{**config, "lr": 1.0}])).iloc[0]
    effect = worse["prediction"] - same["prediction"]
    assert worse["reasons"] == (
        f"against the best known trial: lr = 1 instead of {config['lr']:.5g}: {effect:+.3g}"
    )


def test_a_param_that_depends_on_another_moves_with_it(lightgbm: Answers) -> None:
    best = raw(TRIALS).loc[TRIALS.query("task == 'sweep-1'")["value"].idxmin()]
    assert best["model"] == "mlp"
    swapped = {**best.dropna(), "model": "tree", "units": None, "depth": 12}
    reasons = str(lightgbm.of(pd.DataFrame([swapped])).iloc[0]["reasons"])
    assert "model = tree instead of mlp" in reasons
    assert "depth" not in reasons and "units" not in reasons


def test_rows_are_answered_alike_alone_and_among_many(
    transfer: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = raw(NEW).sample(frac=1, random_state=0)
    whole = transfer.of(rows)
    monkeypatch.setattr(told_by, "_ROWS_AT_ONCE", 7)
    parts = transfer.of(rows)
    pd.testing.assert_frame_equal(parts, whole)
    assert parts.index.equals(rows.index)


def test_no_rows_are_answered_by_none(transfer: Answers) -> None:
    for frame in (pd.DataFrame(), pd.DataFrame({"lr": []}), raw(NEW).iloc[:0]):
        answer = transfer.of(frame)
        assert len(answer) == 0 and list(answer) == list(COLUMNS)


def test_a_very_long_text_is_shown_in_short_and_answered(transfer: Answers) -> None:
    answer = one(transfer, model="x" * 10**6, epochs="9" * 10**6)
    assert len(str(answer["warning"])) < 300 and answer["extrapolates"]


def test_a_column_that_is_given_twice_is_refused(transfer: Answers) -> None:
    with pytest.raises(ValueError, match=r"given once, but \['lr'\] are given twice"):
        transfer.of(pd.DataFrame([[0.1, 0.2]], columns=["lr", "params.lr"]))


def test_a_model_without_signal_says_so_in_every_answer() -> None:
    noise = TRIALS.assign(value=np.random.default_rng(0).normal(size=len(TRIALS)))
    answer = one(answering(packed(noise, "linear"), noise))
    assert str(answer["warning"]).startswith("the model could not tell good from bad")
