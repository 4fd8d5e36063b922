"""The search space as a Gymnasium environment: its own checker plays it, and policies do."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from scipy.stats import wilcoxon
from served_history import history

from mlflow_meta.environment import ID, SearchEnv, improvement_over
from mlflow_meta.models import ZOO, MetaModel
from mlflow_meta.proposal import context_of, in_context, tried_on
from mlflow_meta.space import SearchSpace, infer

TRIALS = history(n_each=30, tasks=2)
TASK = "sweep-1"
SMALL = SearchSpace.from_dict(
    {
        "model": {"type": "categorical", "choices": ["mlp", "tree"]},
        "lr": {"type": "categorical", "choices": [1e-4, 1e-3, 3e-3, 1e-2, 0.03, 0.1, 1.0]},
        "epochs": {"type": "int", "low": 1, "high": 41, "step": 5},
        "units": {"type": "categorical", "choices": [8, 32, 64, 256], "when": {"model": ["mlp"]}},
        "depth": {"type": "int", "low": 2, "high": 12, "step": 2, "when": {"model": ["tree"]}},
        "batch_size": {"type": "categorical", "choices": [16, 64, 256]},
    }
)
Choose = Callable[[np.ndarray, np.ndarray], int]


@pytest.fixture(scope="module")
def model() -> MetaModel:
    made = ZOO["extra_trees"]()
    made.fit(TRIALS, infer(TRIALS).space)
    return made


def play(env: SearchEnv, choose: Choose) -> tuple[list[tuple[int, int]], float, dict]:
    """One episode: which (param, level) were chosen, its return, and its last info."""
    seen, info = env.reset()
    chosen, total, ended = [], 0.0, False
    while not ended:
        asked = int(np.argmax(seen.reshape(-1, 3)[:, 2]))
        action = choose(seen, info["action_mask"])
        chosen.append((asked, action))
        seen, reward, ended, truncated, info = env.step(action)
        assert not truncated
        total += reward
    return chosen, total, info


def at_random(rng: np.random.Generator) -> Choose:
    return lambda _, mask: int(rng.choice(np.flatnonzero(mask)))


def reinforce(env: SearchEnv, rng: np.random.Generator, n: int) -> list[float]:
    """REINFORCE with a mean baseline (Williams, 1992), a softmax a param: returns of n episodes."""
    logits = np.zeros((len(env.space.names), int(env.action_space.n)))

    def probabilities(asked: int, mask: np.ndarray) -> np.ndarray:
        weights = np.exp(logits[asked] - logits[asked].max()) * mask
        return weights / weights.sum()

    def choose(seen: np.ndarray, mask: np.ndarray) -> int:
        asked = int(np.argmax(seen.reshape(-1, 3)[:, 2]))
        return int(rng.choice(len(mask), p=probabilities(asked, mask)))

    got: list[float] = []
    for _ in range(n):
        chosen, total, _ = play(env, choose)
        gain = total - np.mean(got[-50:]) if got else 0.0
        for asked, level in chosen:
            mask = np.arange(logits.shape[1]) < len(env.levels[env.space.names[asked]])
            gradient = -probabilities(asked, mask)
            gradient[level] += 1
            logits[asked] += 0.2 * gain * gradient
        got.append(total)
    return got


@pytest.mark.parametrize("kind", ["small", "continuous"])
def test_gymnasiums_checker_has_nothing_to_say(model: MetaModel, kind: str) -> None:
    space = SMALL if kind == "small" else infer(TRIALS).space
    made = gymnasium.make(ID, model=model, space=space, task=TASK)
    check_env(made.unwrapped)
    made.close()
    side_by_side = gymnasium.make_vec(ID, num_envs=3, model=model, space=space, task=TASK)
    seen, info = side_by_side.reset(seed=0)
    assert seen.shape == (3, 3 * len(space.names))
    assert (info["action_mask"].sum(axis=1) == len(space.params["model"].grid())).all()
    side_by_side.close()


def test_random_episodes_make_configurations_of_the_space_as_the_model_predicts_them(
    model: MetaModel,
) -> None:
    space = infer(TRIALS).space
    context = context_of(TRIALS, space, TASK)
    env = SearchEnv(model, space, task=TASK, context=context)
    rng = np.random.default_rng(0)
    played = [play(env, at_random(rng)) for _ in range(40)]
    configs = [info["config"] for *_, info in played]
    assert all(space.holds(config) and space.active(config) == config for config in configs)
    assert all(space.complete(config, rng) == config for config in configs)
    assert {config["model"] for config in configs} == {"mlp", "tree"}
    frame = in_context(configs, space, TASK, context)
    values = [info["value"] for *_, info in played]
    np.testing.assert_allclose(values, model.predict(frame).mean)
    np.testing.assert_allclose([total for _, total, _ in played], -model.score(frame).mean)


def test_actions_that_are_no_level_are_masked_and_count_as_the_last_one(model: MetaModel) -> None:
    env = SearchEnv(model, SMALL, task=TASK, render_mode="ansi")
    _, info = env.reset()
    assert info["action_mask"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert env.render() == "model?"
    _, _, _, _, info = env.step(8)
    assert info["config"] == {"model": "tree"}
    assert env.action_masks().tolist() == [True] * 7 + [False] * 2  # of lr
    env.step(3)
    _, _, _, _, info = env.step(4)
    assert env.render() == "model=tree, lr=0.01, epochs=21, depth?"
    assert info["action_mask"].sum() == 6  # of depth: units do not exist under a tree
    env.step(0)
    seen, _, ended, _, info = env.step(1)
    assert ended and info["action_mask"].sum() == 0
    assert seen.reshape(-1, 3).tolist() == [
        [1, 1, 0], [1, 0.5, 0], [1, 0.5, 0], [0, 0, 0], [1, 0, 0], [1, 0.5, 0],
    ]  # fmt: skip
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="An action is in Discrete"):
        env.step(9)


def test_reinforce_finds_the_optimum_of_brute_force_and_beats_random(model: MetaModel) -> None:
    scores = model.score(in_context(SMALL.enumerate(), SMALL, TASK, {})).mean
    env = SearchEnv(model, SMALL, task=TASK)
    late, random = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        got = reinforce(env, rng, 500)
        assert max(got) == pytest.approx(-scores.min())
        late.append(np.mean(got[-100:]))
        random.append(np.mean([play(env, at_random(rng))[1] for _ in range(100)]))
    assert len(scores) == 1890  # of which 500 random ones hold the best once in 4 times
    assert wilcoxon(late, random, alternative="greater").pvalue < 0.02
    assert np.mean(late) > np.quantile(-scores, 0.9)


def test_what_a_configuration_is_worth_may_be_its_expected_improvement(model: MetaModel) -> None:
    space = infer(TRIALS).space
    tried = in_context(tried_on(TRIALS, TASK), space, TASK, {})
    best = float(model.score(tried).mean.min())
    env = SearchEnv(model, space, task=TASK, worth=improvement_over(best), n_levels=5)
    assert len(env.levels["lr"]) == 5 and len(env.levels["units"]) == 6  # listed: all of them
    _, worth, info = play(env, at_random(np.random.default_rng(0)))
    score = model.score(in_context([info["config"]], space, TASK, {}))
    draws = np.random.default_rng(0).normal(score.mean[0], score.std[0], 400_000)
    assert worth == pytest.approx(np.maximum(best - draws, 0).mean(), rel=0.05, abs=1e-4)


def test_a_param_with_one_level_only_makes_no_environment(model: MetaModel) -> None:
    with pytest.raises(ValueError, match="`n_levels >= 2` must hold, but got 1"):
        SearchEnv(model, SMALL, task=TASK, n_levels=1)


def test_a_space_with_constraints_is_refused_as_they_would_not_be_kept(model: MetaModel) -> None:
    params = {name: {"type": "int", "low": 1, "high": 9} for name in ("depth", "units")}
    rules = ["depth + units <= 10"]
    space = SearchSpace.from_dict({"parameters": params, "constraints": rules})
    with pytest.raises(ValueError, match=r"no constraint between them \(depth \+ units <= 10\)"):
        SearchEnv(model, space, task=TASK)


def test_a_value_that_another_param_needs_is_a_level(model: MetaModel) -> None:
    space = SearchSpace.from_dict(
        {
            "epochs": {"type": "int", "low": 1, "high": 100},
            "depth": {"type": "int", "low": 1, "high": 3, "when": {"epochs": [3]}},
        }
    )
    env = SearchEnv(model, space, task=TASK, n_levels=5)
    levels = env.levels["epochs"]
    assert 3 in levels
    assert levels == sorted(levels)
    _, info = env.reset()
    env.step(levels.index(3))
    _, _, ended, _, info = env.step(1)
    assert (ended, info["config"]) == (True, {"epochs": 3, "depth": 2})
