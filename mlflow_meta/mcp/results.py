"""What the tools answer: the schemas that clients are told. What is not known is null."""

from __future__ import annotations

import math

from pydantic import BaseModel, Field

from mlflow_meta.trials import ConfigValue, Objective

Config = dict[str, ConfigValue]


class Experiment(BaseModel):
    """An experiment of the newest harvest."""

    name: str
    n_trials: int = Field(description="Finished runs that teach something")
    tasks: list[str] = Field(description="What the runs are about; several for several data sets")
    varied_params: list[str] = Field(description="Params that differ between its runs")
    metrics: dict[str, int] = Field(description="Metric -> how many runs have it, most first")


class Model(BaseModel):
    """A trained meta-model that can be asked."""

    name: str
    metric: str = Field(description="What it predicts; pass it as `metric`")


class Experiments(BaseModel):
    """What there is to ask about."""

    experiments: list[Experiment]
    models: list[Model]


class Sought(BaseModel):
    """What an answer is about."""

    metric: str
    direction: str = Field(description="minimize or maximize: which values are better")


class Trial(BaseModel):
    """A finished run."""

    run_id: str
    task: str
    value: float = Field(description="The metric that it got")
    params: Config
    duration_s: float | None = Field(description="Seconds that it took")


class Best(Sought):
    """The best finished runs of an experiment."""

    n_trials: int = Field(description="Of how many")
    median: float = Field(description="The median metric of these")
    trials: list[Trial] = Field(description="The best first")


class Prediction(BaseModel):
    """What is expected of one configuration, in the metric's own units."""

    prediction: float
    low_80: float = Field(description="Lower end of the 80% prediction interval")
    high_80: float = Field(description="Upper end of it")
    best_known: float | None = Field(description="Best metric of the task so far")
    chance_to_beat_best: float | None = Field(description="Probability of a better one, 0 to 1")
    duration_s: float | None = Field(description="Seconds that training it would take")
    extrapolates: bool = Field(description="Whether it is far from all that was tried")
    warning: str = Field(description="What is odd about it; empty where nothing is")
    reasons: str = Field(description="Which params move the prediction most, against the best")


class Predictions(Sought):
    """Predictions in the order of the configurations."""

    task: str
    model: str = Field(description="Name and version of the meta-model")
    has_signal: bool = Field(
        description="Whether the meta-model could tell good from bad on held-out runs; where it "
        "could not, predictions say little"
    )
    unknown_params: list[str] = Field(description="Given, but the meta-model knows none of these")
    predictions: list[Prediction]


class Suggestion(BaseModel):
    """A configuration that is worth training next."""

    rank: int
    params: Config
    predicted: float
    low_80: float
    high_80: float
    run_id: str | None = Field(description="Its SCHEDULED run; null where none was scheduled")


class Suggestions(Sought):
    """Configurations to train next, the best first."""

    task: str
    model: str
    has_signal: bool = Field(
        description="Whether the meta-model could tell good from bad on held-out runs; where it "
        "could not, these cover the space evenly"
    )
    best_so_far: float | None
    search: str | None = Field(description="How the space was searched, and what is proven")
    remarks: list[str]
    suggestions: list[Suggestion]


class Importance(BaseModel):
    """How much a param matters."""

    param: str
    permutation: float | None = Field(
        description="How much worse the meta-model gets where it says nothing; 1 is a lot"
    )
    ped_anova: float | None = Field(description="Its share of what tells the best runs apart")
    n_runs: int = Field(description="Runs that have it")


class Point(BaseModel):
    """A value of a param, and what is expected there over all else."""

    at: ConfigValue
    mean: float
    low: float
    high: float


class Explanation(Sought):
    """What matters for an experiment."""

    task: str
    model: str
    n_trials: int
    has_signal: bool = Field(
        description="Whether the meta-model could tell good from bad on held-out runs"
    )
    sentence: str = Field(description="What the most important params do")
    importance: list[Importance] = Field(description="The most important first")
    partial_dependence: dict[str, list[Point]]


def sought(objective: Objective) -> dict[str, str]:
    """The fields of `Sought`."""
    return {"metric": objective.metric, "direction": objective.direction.value}


def known(value: float | None) -> float | None:
    """A number as JSON has it: null for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
