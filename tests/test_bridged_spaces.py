"""Tests for space/distributions.py and space/configspace.py: there and back is the same space."""

from __future__ import annotations

import numpy as np
import pytest
from ConfigSpace import (
    Beta,
    ConfigurationSpace,
    EqualsCondition,
    ForbiddenEqualsClause,
    GreaterThanCondition,
    LessThanCondition,
    NotEqualsCondition,
    OrConjunction,
)
from ConfigSpace import (
    Categorical as CsCategorical,
)
from ConfigSpace import (
    Float as CsFloat,
)
from ConfigSpace import (
    Integer as CsInteger,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from mlflow_meta.errors import BadSpace
from mlflow_meta.space import (
    Categorical,
    Float,
    Integer,
    Param,
    SearchSpace,
    from_configspace,
    from_distributions,
    read_distribution,
    to_configspace,
    to_distributions,
)

ends = st.integers(-1000, 1000)
widths = st.integers(2, 500)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=8)


@st.composite
def numbers(draw: st.DrawFn) -> Param:
    low, width, log = draw(ends), draw(widths), draw(st.booleans())
    low = abs(low) + 1 if log else low
    if draw(st.booleans()):
        return Integer(low=low, high=low + width, log=log)
    return Float(low=low / 8, high=(low + width) / 8, log=log)


@st.composite
def choices(draw: st.DrawFn) -> Categorical:
    some = draw(
        st.one_of(
            st.lists(texts, min_size=1, max_size=4, unique=True),
            st.just([False, True]),
            st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(sorted),
        )
    )
    log = draw(st.booleans()) and all(isinstance(c, int) and c > 0 for c in some)
    log = log and not isinstance(some[0], bool)
    return Categorical(choices=tuple(some), log=log and len(some) > 1)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """A tree of params: some exist only under some choices of one or two that stand before."""
    params: dict[str, Param] = {}
    for i in range(draw(st.integers(1, 6))):
        param = draw(st.one_of(numbers(), choices()))
        parents = [n for n, p in params.items() if isinstance(p, Categorical)]
        chosen = (
            draw(st.lists(st.sampled_from(parents), max_size=2, unique=True)) if parents else []
        )
        when = {}
        for parent in chosen:
            known = params[parent].choices  # type: ignore[union-attr]
            kept = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
            when[parent] = tuple(c for c in known if c in kept)
        fields = {key: getattr(param, key) for key in param.__slots__}
        params[f"p{i}"] = type(param)(**{**fields, "when": when})
    return SearchSpace(params)


@given(space=spaces(), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_a_space_comes_back_from_configspace(space: SearchSpace, seed: int) -> None:
    there = to_configspace(space)
    assert from_configspace(there) == space
    there.seed(seed)
    for config in there.sample_configuration(5):  # each of theirs is one of ours, and complete
        ours = {name: v.item() if isinstance(v, np.generic) else v for name, v in config.items()}
        assert space.active(ours).keys() == ours.keys()
        assert space.complete(ours, np.random.default_rng(0)).keys() == ours.keys()
        assert space.holds(ours)


@given(space=spaces())
@settings(max_examples=60)
def test_params_come_back_from_optuna_without_their_conditions_and_scales_of_choices(
    space: SearchSpace,
) -> None:
    """Of choices Optuna knows no scale."""
    bare = {}
    for name, param in space.params.items():
        fields = {key: getattr(param, key) for key in param.__slots__}
        more = {"log": False} if isinstance(param, Categorical) else {}
        bare[name] = type(param)(**{**fields, "when": {}, **more})
    assert from_distributions(to_distributions(space)) == SearchSpace(bare)


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-1.5, 2.0),
        FloatDistribution(1e-7, 1.0, log=True),
        FloatDistribution(-10.2, 10.2, step=0.1),
        IntDistribution(-3, 9, step=3),
        IntDistribution(1, 100, log=True),
        CategoricalDistribution(("b", "a")),
        CategoricalDistribution((True, False)),
        CategoricalDistribution((1, 2.5, 10)),
        CategoricalDistribution((1, "a", True)),
    ],
)
def test_a_distribution_comes_back_from_ours_and_its_json_says_what_its_repr_says(
    distribution: BaseDistribution,
) -> None:
    assert to_distributions(from_distributions({"x": distribution})) == {"x": distribution}
    as_json, as_repr = distribution_to_json(distribution), str(distribution)
    assert read_distribution(as_json) == read_distribution(as_repr)


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("UniformDistribution(high=1.0, low=0.0)", Float(low=0.0, high=1.0)),
        ("LogUniformDistribution(high=1.0, low=0.1)", Float(low=0.1, high=1.0, log=True)),
        (
            "DiscreteUniformDistribution(high=1.0, low=0.0, q=0.25)",
            Float(low=0.0, high=1.0, step=0.25),
        ),
        ("IntUniformDistribution(high=9, low=1, step=2)", Integer(low=1, high=9, step=2)),
        ("IntLogUniformDistribution(high=9, low=1, step=1)", Integer(low=1, high=9, log=True)),
        ("CategoricalDistribution(choices=(None, 'sqrt'))", Categorical(choices=("None", "sqrt"))),
        ("IntDistribution(high=3, log=False, low=3, step=1)", Categorical(choices=(3,))),
        ("CategoricalDistribution(choices=(100, 1, 10))", Categorical(choices=(1, 10, 100))),
    ],
)
def test_what_optuna_has_written_is_read(text: str, param: Param) -> None:
    assert read_distribution(text) == param


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "x",
        "__import__('os').getcwd()",
        "FloatDistribution(low=open('x'), high=1)",
        "FloatDistribution(low=0.0)",
        "FloatDistribution(high=inf, low=0.0, log=False, step=None)",
        'CategoricalDistribution(choices=("a", ...',
        '{"name": "FloatDistribution", "attributes": {"low": "a", "high": 1}}',
        '{"name": "FloatDistribution", "attributes": 3}',
        '{"name": "NormalDistribution", "attributes": {"low": 0, "high": 1}}',
        "CategoricalDistribution(choices=())",
        "(" * 5000,
    ],
)
def test_other_texts_are_a_value_error_and_never_run(text: str) -> None:
    with pytest.raises(ValueError):
        read_distribution(text)


def test_what_optuna_can_not_say_names_the_param() -> None:
    space = SearchSpace({"lr": Float(low=0.1, high=1.0, log=True, step=0.1)})
    with pytest.raises(BadSpace, match="lr: Optuna has no grid on a logarithmic scale"):
        to_distributions(space)


@pytest.mark.parametrize(
    "param",
    [
        Float(low=0.0, high=1.0, step=0.5),
        Integer(low=0, high=8, step=2),
        Float(low=1e-14, high=1.0, log=True),
    ],
)
def test_what_configspace_can_not_say_names_the_param(param: Param) -> None:
    with pytest.raises(BadSpace, match=r"^width: "):
        to_configspace(SearchSpace({"width": param}))


def _parents() -> ConfigurationSpace:
    space = ConfigurationSpace({"model": ["svm", "tree", "mlp"], "n": (1, 9), "child": (0.0, 1.0)})
    space.add(CsCategorical("other", ["x", "y"]))
    return space


def test_not_equal_is_all_other_choices() -> None:
    space = _parents()
    space.add(NotEqualsCondition(space["child"], space["model"], "svm"))
    assert from_configspace(space).params["child"].when == {"model": ("tree", "mlp")}


def test_alternatives_of_one_parent_are_all_of_them() -> None:
    space = _parents()
    child, model = space["child"], space["model"]
    either = OrConjunction(
        EqualsCondition(child, model, "svm"), EqualsCondition(child, model, "mlp")
    )
    space.add(either)
    assert from_configspace(space).params["child"].when == {"model": ("svm", "mlp")}


def test_less_than_on_an_ordinal_is_those_choices() -> None:
    space = ConfigurationSpace()
    space.add(CsCategorical("depth", [1, 2, 4, 8], ordered=True), CsFloat("child", (0.0, 1.0)))
    space.add(LessThanCondition(space["child"], space["depth"], 4))
    assert from_configspace(space).params["child"].when == {"depth": (1, 2)}


def test_what_can_not_be_said_here_names_the_param() -> None:
    part, several, forbidden = _parents(), _parents(), _parents()
    part.add(GreaterThanCondition(part["child"], part["n"], 3))
    child = several["child"]
    by_model = EqualsCondition(child, several["model"], "svm")
    several.add(OrConjunction(by_model, EqualsCondition(child, several["other"], "x")))
    forbidden.add(ForbiddenEqualsClause(forbidden["model"], "tree"))
    weighted, prior, ordered = ConfigurationSpace(), ConfigurationSpace(), ConfigurationSpace()
    weighted.add(CsCategorical("child", ["a", "b"], weights=[1, 3]))
    prior.add(CsInteger("child", (0, 9), distribution=Beta(2, 3)))
    ordered.add(CsCategorical("child", ["s", "m", "l"], ordered=True))
    for space in (part, several, weighted, prior, ordered):
        with pytest.raises(BadSpace, match=r"^child: "):
            from_configspace(space)
    with pytest.raises(BadSpace, match="model"):
        from_configspace(forbidden)
