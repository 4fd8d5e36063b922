"""A search space as a Gymnasium environment: any reinforcement learning library can search it.

An episode makes one configuration: each step chooses a level of the next param that exists under
the choices before it, parents first; a param that does not exist is never asked for. Nothing is
trained, the meta-model says what the configuration is worth.

P:            params of the space
level:        one value of a param; of a continuum, `n_levels` values, even on its own scale
action:       a level of the param that is asked for, 0 to the most levels that a param has, less 1
observation:  `(3 P,)` in [0, 1]: of each param whether it was chosen, where its level lies from its
              first (0) to its last (1), and whether it is asked for now
reward:       0 but for the last step; there what the configuration is worth, more is better

Needs the extra `[gymnasium]`. To import this module registers `mlflow_meta/Search-v0`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from mlflow_meta.acquisition import expected_improvement
from mlflow_meta.models import MetaModel, Prediction
from mlflow_meta.proposal import in_context
from mlflow_meta.space import Categorical, SearchSpace
from mlflow_meta.space.params import is_active
from mlflow_meta.trials import ConfigValue

N_LEVELS = 32  # of a param with more values
ID = "mlflow_meta/Search-v0"
_MEMORY = 100_000  # configurations whose prediction is kept: a policy comes back to the good ones

Observation = NDArray[np.float32]
Worth = Callable[[Prediction], float]
"""What one configuration is worth, by its predicted score `(1,)`, which is minimised."""


def predicted_best(score: Prediction) -> float:
    """How good a configuration is predicted: minus its score."""
    return -float(score.mean[0])


def improvement_over(best: float) -> Worth:
    """Expected improvement over a score, such as the lowest one that the tried trials have."""
    return lambda score: float(expected_improvement(score.mean, score.std, best)[0])


class SearchEnv(gymnasium.Env[Observation, np.int64]):
    """See the module.

    `info["action_mask"]` tells which actions are levels of the param that is asked for, as
    `action_space.sample(mask)` takes it; `action_masks()` tells it as masked policies ask for it.
    An action beyond counts as the last level, so that policies without masks may play, too.

    `info["config"]` has the choices so far. At the end that is a whole configuration, and
    `info["score"]` and `info["value"]` what the meta-model predicts of it: its score, and the
    objective in the units of the task, both minimised.

    Example:
        >>> env = SearchEnv(model, space, task="digits")
        >>> _, info = env.reset(seed=0)
        >>> ended = False
        >>> while not ended:
        ...     action = env.action_space.sample(info["action_mask"])
        ...     _, reward, ended, _, info = env.step(action)
        >>> info["config"]
        {'model': 'mlp', 'lr': 0.0042, 'units': 64}
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 - as Env declares it

    def __init__(  # noqa: PLR0913 - each is a choice of its own
        self,
        model: MetaModel,
        space: SearchSpace,
        *,
        task: str,
        context: Mapping[str, object] | None = None,
        worth: Worth = predicted_best,
        n_levels: int = N_LEVELS,
        render_mode: str | None = None,
    ) -> None:
        """Ask a fitted meta-model about a space.

        Args:
            model: Fitted.
            space: What may be chosen; need not be the one that the model was fitted with.
            task: Which task the configurations are for.
            context: What is given for it, as `proposal.context_of` has it; None for nothing.
            worth: What the last reward is.
            n_levels: How many levels a param has that has more values, at least 2.
            render_mode: None, or "ansi": `render` then tells the choices so far.

        Raises:
            ValueError: If `n_levels < 2`, or the space has constraints between params.
        """
        if n_levels < 2:
            raise ValueError(f"`n_levels >= 2` must hold, but got {n_levels}.")
        if space.constraints:
            told = "; ".join(constraint.text for constraint in space.constraints)
            raise ValueError(
                "Params are chosen one after the other here, which keeps to no constraint between "
                f"them ({told}). Search with `propose`, or make a space without constraints."
            )
        self.space, self.render_mode = space, render_mode
        self.levels = {name: _levels(name, space, n_levels) for name in space.names}
        self._n_actions = max(map(len, self.levels.values()))
        self.action_space = gymnasium.spaces.Discrete(self._n_actions)
        shape = (3 * len(self.levels),)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, shape, np.float32)
        self._model, self._worth = model, worth
        given = dict(context or {})

        @functools.lru_cache(_MEMORY)
        def predicted(chosen: tuple[tuple[str, int], ...]) -> tuple[Prediction, float]:
            frame = in_context([self._config(dict(chosen))], space, task, given)
            score = model.score(frame)
            return score, float(model.predict(frame).mean[0])

        self._predicted = predicted
        self._chosen: dict[str, int] = {}
        self._next: str | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a configuration. Nothing is random here but what the agent does."""
        super().reset(seed=seed)
        self._chosen, self._next = {}, self.space.names[0]
        return self._seen(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Choose a level of the param that is asked for.

        Raises:
            ResetNeeded: If the configuration is whole, or none was begun.
            ValueError: If it is no action.
        """
        if self._next is None:
            raise ResetNeeded("No configuration is begun: call `reset`.")
        if not self.action_space.contains(action):
            raise ValueError(f"An action is in {self.action_space}, but got {action!r}.")
        self._chosen[self._next] = min(int(action), len(self.levels[self._next]) - 1)
        self._next = self._after(self._next)
        info, reward = self._info(), 0.0
        if self._next is None:
            score, value = self._predicted(tuple(self._chosen.items()))
            reward = self._worth(score)
            info |= {"score": float(score.mean[0]), "value": value}
        return self._seen(), reward, self._next is None, False, info

    def render(self) -> str | None:
        """The choices so far, on one line; None without a render mode."""
        if self.render_mode is None:
            return None
        told = ", ".join(f"{name}={value}" for name, value in self._config(self._chosen).items())
        return told + (f", {self._next}?" if told else f"{self._next}?") if self._next else told

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are levels of the param that is asked for, `(n,)`; none at the end."""
        n = len(self.levels[self._next]) if self._next else 0
        return np.arange(self._n_actions) < n

    def _after(self, name: str) -> str | None:
        """The next param that exists under what was chosen; None if there is none."""
        config, names = self._config(self._chosen), self.space.names
        rest = names[names.index(name) + 1 :]
        return next((n for n in rest if is_active(self.space.params[n].when, config)), None)

    def _config(self, chosen: Mapping[str, int]) -> dict[str, ConfigValue]:
        return {name: self.levels[name][level] for name, level in chosen.items()}

    def _info(self) -> dict[str, Any]:
        config = self._config(self._chosen)
        return {"config": config, "action_mask": self.action_masks().astype(np.int8)}

    def _seen(self) -> Observation:
        seen = np.zeros((len(self.levels), 3), dtype=np.float32)
        for i, (name, levels) in enumerate(self.levels.items()):
            if name in self._chosen:
                seen[i, :2] = 1.0, self._chosen[name] / max(len(levels) - 1, 1)
            seen[i, 2] = name == self._next
        return seen.ravel()


def _levels(name: str, space: SearchSpace, n_levels: int) -> list[ConfigValue]:
    """The values of a param among which is chosen, in its order; with those that others need."""
    param = space.params[name]
    if isinstance(param, Categorical) or param.n_values <= n_levels:
        return param.grid()
    asked = [value for child in space.params.values() for value in child.when.get(name, ())]
    levels = {*param.from_unit(np.linspace(0.0, 1.0, n_levels)), *asked}
    return sorted(levels, key=float)


gymnasium.register(ID, entry_point="mlflow_meta.environment:SearchEnv")
