"""A registered model that is asked what to try next."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from served_history import history, packed

from mlflow_meta.errors import BadSpace, Exhausted
from mlflow_meta.proposal import choose_batch, tried_on
from mlflow_meta.served.answers import COLUMNS, Answers
from mlflow_meta.served.memory import Memory
from mlflow_meta.served.packed import Packed, pack, unpack
from mlflow_meta.served.remember import remember
from mlflow_meta.served.suggestions import suggest
from mlflow_meta.space import infer
from mlflow_meta.trials import Direction

TRIALS = history(n_each=30, tasks=2)


class Asked:
    """A model that has been through its files."""

    def __init__(self, it: Packed, trials: pd.DataFrame = TRIALS) -> None:
        files = pack(it, remember(trials, it.model.encoder.space).save())
        self.packed, self.memory = unpack(files), Memory.load(files)
        self.answers = Answers(self.packed, self.memory)

    def __call__(
        self, k: int = 5, task: str = "sweep-1", fixed: dict[str, object] | None = None,
        **more: float,
    ) -> pd.DataFrame:  # fmt: skip
        asked = {"search_s": 20.0, "seed": 0, **more}
        return suggest(
            self.packed, self.memory, self.answers, task=task, k=k,
            search_s=asked["search_s"], seed=int(asked["seed"]), fixed=fixed,
        )  # fmt: skip


def test_what_a_row_has_beside_its_task_is_fixed_or_refused() -> None:
    ask = Asked(packed(TRIALS, "linear"))
    found = ask(k=3, fixed={"model": "mlp", "batch_size": 64.0, "depth": None, "lr": np.nan})
    assert set(found["model"]) == {"mlp"} and set(found["batch_size"]) == {64}
    assert "depth" not in found and found["lr"].nunique() > 1
    assert set(ask(k=2, fixed={"params.nesterov": "True", "lr": "None"})["nesterov"]) == {True}
    with pytest.raises(ValueError, match=r"hardware\.gpu_model can't be asked for: with k, the"):
        ask(fixed={"hardware.gpu_model": "T4"})
    with pytest.raises(BadSpace, match=r"no param 'modle' .did you mean model"):
        ask(fixed={"modle": "mlp"})
    with pytest.raises(BadSpace, match="Nothing is left of model where model=svm"):
        ask(fixed={"model": "svm"})


@pytest.fixture(scope="module")
def transfer() -> Asked:
    return Asked(packed(TRIALS, "transfer", Direction.MAXIMIZE, "accuracy"))


def configs(found: pd.DataFrame) -> list[dict[str, object]]:
    chosen = found.drop(columns=["rank", "task", *COLUMNS]).to_dict("records")
    return [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in chosen]


@pytest.mark.parametrize("kind", ["transfer", "linear"])
def test_suggestions_are_those_of_the_search_and_as_they_are_answered(kind: str) -> None:
    it = packed(TRIALS, kind)
    ask = Asked(it)
    found = ask()
    own = TRIALS[TRIALS["task"] == "sweep-1"]
    space = infer(own).space
    tried = tried_on(TRIALS, "sweep-1")
    expected, _ = choose_batch(
        it.model, space, TRIALS, task="sweep-1", n=5, tried=tried,
        rng=np.random.default_rng(0), search_s=20.0,
    )  # fmt: skip
    assert configs(found) == expected
    assert [{k: type(v) for k, v in c.items()} for c in configs(found)] == [
        {k: type(v) for k, v in c.items()} for c in expected
    ]


@pytest.mark.parametrize("kind", ["transfer", "lightgbm", "linear"])
def test_suggestions_are_new_in_the_space_and_as_they_are_answered(kind: str) -> None:
    ask = Asked(packed(TRIALS, kind))
    found = ask(search_s=1.0)
    space = infer(TRIALS[TRIALS["task"] == "sweep-1"]).space
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert found["prediction"].is_monotonic_increasing
    keys = {space.key(space.active(config)) for config in tried_on(TRIALS, "sweep-1")}
    for config in configs(found):
        assert space.holds(config) and space.active(config) == config  # type: ignore[arg-type]
        assert space.key(config) not in keys  # type: ignore[arg-type]
    again = ask.answers.of(found[["task", *space.names]])
    pd.testing.assert_frame_equal(again, found[list(COLUMNS)])


def test_of_a_metric_to_be_maximised_the_highest_comes_first(transfer: Asked) -> None:
    found = transfer()
    assert found["prediction"].is_monotonic_decreasing
    assert found["prediction"].iloc[0] > -TRIALS.query("task == 'sweep-1'")["value"].median()
    assert found["chance_to_beat_best"].iloc[0] > 0.05


def test_a_task_without_trials_gets_suggestions_too(transfer: Asked) -> None:
    found = transfer(3, task="new")
    assert len(configs(found)) == 3 and found["best_known"].isna().all()


def test_equal_seeds_suggest_alike(transfer: Asked) -> None:
    pd.testing.assert_frame_equal(transfer(), transfer())
    assert configs(transfer(seed=1)) != configs(transfer())


def test_when_all_was_tried_it_says_so() -> None:
    trials = pd.DataFrame(
        {
            "task": "a",
            "value": np.arange(16) % 4 + np.arange(16) / 100,
            "params.depth": pd.array(np.arange(16) % 4, dtype="Int64"),
        }
    )
    ask = Asked(packed(trials, "linear"), trials)
    with pytest.raises(Exhausted, match="have been run or suggested already"):
        ask(3, task="a")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"k": 0}, "1 <= k <= 1000"),
        ({"k": 1001}, "1 <= k <= 1000"),
        ({"search_s": 0.0}, "0 < search_s <= 3600"),
        ({"search_s": float("nan")}, "0 < search_s <= 3600"),
        ({"seed": -1}, "seed >= 0"),
    ],
)
def test_what_is_out_of_bounds_is_refused(
    transfer: Asked, asked: dict[str, float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        transfer(**asked)  # type: ignore[arg-type]


def test_a_param_named_as_a_column_of_the_answer_keeps_its_prefix() -> None:
    trials = TRIALS.rename(columns={"params.lr": "params.rank", "params.dropout": "params.task"})
    found = Asked(packed(trials, "linear"), trials)(2)
    assert {"rank", "params.rank", "task", "params.task"} <= set(found)
    assert found["task"].tolist() == ["sweep-1"] * 2 and found["rank"].tolist() == [1, 2]


def test_the_trials_come_back_as_they_were(transfer: Asked) -> None:
    back = pd.read_parquet(io.BytesIO(transfer.memory.trials))
    pd.testing.assert_frame_equal(back, TRIALS)
