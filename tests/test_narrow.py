"""Tests for space/narrow.py: a part of a space has just the configurations that were asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from mlflow_meta.errors import BadSpace
from mlflow_meta.search import local_search
from mlflow_meta.space import Categorical, Float, Integer, SearchSpace, narrowed
from mlflow_meta.space.params import allows
from mlflow_meta.trials import Config

SPACE = SearchSpace.from_dict(
    {
        "model": {"type": "categorical", "choices": ["mlp", "tree", "svm, rbf"]},
        "depth": {"type": "int", "low": 2, "high": 12, "step": 2, "when": {"model": ["tree"]}},
        "batch": {"type": "categorical", "choices": [16, 32, 64], "log": True},
        "drop": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1, "when": {"model": ["mlp"]}},
        "flag": {"type": "categorical", "choices": [False, True], "when": {"drop": [0.1, 0.2]}},
    }
)
WIDE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "layers": {"type": "int", "low": 1, "high": 100},
    }
)


def keys(space: SearchSpace) -> list[object]:
    return sorted(map(str, map(SearchSpace.key, space.enumerate())))


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        (["model=mlp"], lambda c: c["model"] == "mlp"),
        (["model=svm, rbf"], lambda c: c["model"] == "svm, rbf"),
        (["model = tree,svm, rbf"], lambda c: c["model"] != "mlp"),
        (["depth=4"], lambda c: c.get("depth", 4) == 4),
        (["depth=3..7"], lambda c: c.get("depth", 4) in (4, 6)),
        (["depth=..9.5"], lambda c: c.get("depth", 4) <= 8),
        (["depth=12..12"], lambda c: c.get("depth", 12) == 12),
        (["batch=32.."], lambda c: c["batch"] >= 32),
        (["batch=16,64"], lambda c: c["batch"] != 32),
        (["batch=32.0"], lambda c: c["batch"] == 32),
        (["batch=16..32", "batch=32..64"], lambda c: c["batch"] == 32),
        (["drop=0.1..0.3"], lambda c: 0.09 < c.get("drop", 0.1) < 0.31),
        (["drop=0.2..0.3"], lambda c: 0.19 < c.get("drop", 0.2) < 0.31),
        (["drop=0.3,0.5"], lambda c: c.get("drop", 0.3) in (0.3, 0.5)),
        (["flag=true"], lambda c: c.get("flag", True) is True),
        (["model!=mlp"], lambda c: c["model"] != "mlp"),
        (["model!=tree,svm, rbf"], lambda c: c["model"] == "mlp"),
        (["model!=tree", "model != tree"], lambda c: c["model"] != "tree"),
        (["depth!=2"], lambda c: c.get("depth", 4) != 2),
        (["depth!=6"], lambda c: c.get("depth", 4) != 6),
        (["depth!=4,10"], lambda c: c.get("depth", 6) not in (4, 10)),
        (["depth!=3..9"], lambda c: c.get("depth", 2) in (2, 10, 12)),
        (["depth!=5"], lambda _: True),
        (["depth!=8..4"], lambda _: True),
        (["depth!=20..30"], lambda _: True),
        (["depth<6"], lambda c: c.get("depth", 2) < 6),
        (["depth <= 6"], lambda c: c.get("depth", 2) <= 6),
        (["depth>6.5"], lambda c: c.get("depth", 8) > 6.5),
        (["depth>=6", "depth<8"], lambda c: c.get("depth", 6) == 6),
        (["depth == 4"], lambda c: c.get("depth", 4) == 4),
        (["depth!=6", "depth!=6", "depth<10"], lambda c: c.get("depth", 2) in (2, 4, 8)),
        (["batch!=32"], lambda c: c["batch"] != 32),
        (["batch!=20..100"], lambda c: c["batch"] == 16),
        (["batch<64"], lambda c: c["batch"] < 64),
        (["batch>16."], lambda c: c["batch"] > 16),
        (["drop<0.3"], lambda c: c.get("drop", 0.1) < 0.29),
        (["drop>0.3"], lambda c: c.get("drop", 0.4) > 0.31),
        (["drop!=0.1"], lambda c: c.get("drop", 0.2) != 0.1),
        (["drop!=0.0,0.5"], lambda c: c.get("drop", 0.2) not in (0.0, 0.5)),
        (["flag!=true"], lambda c: c.get("flag", False) is False),
        (["model=tree", "depth=2,4"], lambda c: c["model"] == "tree" and c["depth"] < 6),
        ([], lambda _: True),
    ],
)
def test_a_part_has_the_configurations_in_which_the_conditions_hold(
    where: list[str], holds: Callable[[Config], bool]
) -> None:
    part = narrowed(SPACE, where)
    expected = [c for c in SPACE.enumerate() if holds(c)]
    assert keys(part) == sorted(map(str, map(SearchSpace.key, expected)))
    assert [part.holds(c) for c in SPACE.enumerate()] == [holds(c) for c in SPACE.enumerate()]
    assert SearchSpace.from_dict(part.to_dict()) == part


def test_a_fixed_parent_takes_its_other_children_and_theirs_along() -> None:
    assert narrowed(SPACE, ["model=tree"]).names == ["model", "depth", "batch"]
    assert narrowed(SPACE, ["drop=0.3.."]).names == ["model", "depth", "batch", "drop"]
    assert narrowed(SPACE, ["drop=0.2.."]).params["flag"].when == {"drop": (0.2,)}


@pytest.mark.parametrize(
    ("condition", "low", "high"),
    [("lr=1e-3..0.1", 1e-3, 0.1), ("lr=0.01..", 0.01, 1.0), ("lr=..0.01", 1e-4, 0.01),
     ("lr=1e-9..1e9", 1e-4, 1.0), ("lr = 0.5 .. 2", 0.5, 1.0),
     ("lr<=0.01", 1e-4, 0.01), ("lr>=0.01", 0.01, 1.0), ("lr<7", 1e-4, 1.0), ("lr>0", 1e-4, 1.0),
     ("lr<0.01", 1e-4, 0.00999999), ("lr>0.02", 0.02000001, 1.0), ("lr<inf", 1e-4, 1.0),
     ("lr!=0.5..", 1e-4, 0.4999999), ("lr!=1", 1e-4, 0.999999), ("lr!=1e-9", 1e-4, 1.0),
     ("lr!=..0.01", 0.01000001, 1.0)],
)  # fmt: skip
def test_a_range_is_cut_to_the_space(condition: str, low: float, high: float) -> None:
    assert narrowed(WIDE, [condition]).params["lr"] == Float(low=low, high=high, log=True)


def test_a_number_or_several_are_a_choice_of_the_same_kind() -> None:
    part = narrowed(WIDE, ["lr=0.01", "layers=8,4"])
    assert part.params["lr"] == Categorical(choices=(0.01,), log=True)
    assert part.params["layers"] == Categorical(choices=(4, 8))
    assert all(isinstance(c["layers"], int) for c in part.enumerate())
    assert narrowed(WIDE, ["layers=3..9"]).params["layers"] == Integer(low=3, high=9)
    assert narrowed(WIDE, ["layers!=1..2", "layers<10"]).params["layers"] == Integer(low=3, high=9)
    assert narrowed(SPACE, ["depth!=5", "depth!=2.5..3.5", "drop!=0.15"]) == SPACE


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("modle=mlp", r"no param 'modle' \(did you mean model\?\); it has model, depth, batch"),
        ("zzz=1", r"no param 'zzz'; it has model"),
        ("model=mpl", r"model=mpl: it is one of mlp, tree, svm, rbf \(did you mean mlp\?\)"),
        ("model=mlp,", "Nothing is left of model"),
        ("model=mlp..tree", "Nothing is left of model"),
        ("depth=5", "a whole number from 2 to 12 in steps of 2. To go beyond that, edit the file"),
        ("depth=4.5", "Nothing is left of depth"),
        ("depth=7..7.9", "Nothing is left of depth"),
        ("depth=20..30", "Nothing is left of depth where depth=20..30"),
        ("depth=8..4", "Nothing is left of depth"),
        ("depth=..", "Nothing is left of depth"),
        ("depth=deep", "Nothing is left of depth"),
        ("depth=2..deep", "Nothing is left of depth"),
        ("depth=nan", "Nothing is left of depth"),
        ("batch=17..31", "one of 16, 32, 64"),
        ("batch=48", "one of 16, 32, 64"),
        ("drop=0.25", r"a number from 0 to 0.5 in steps of 0.1"),
        ("model!=mpl", r"names no value of model, .* tree, svm, rbf \(did you mean mlp\?\)"),
        ("model!=mlp,tree,svm, rbf", "Nothing is left of model"),
        ("model<3", "says more or less of model, .*: write model=... or model!=..."),
        ("depth<deep", "compares depth with 'deep', no number"),
        ("depth<3..4", "compares depth with '3..4', no number"),
        ("depth!=deep", "names no value of depth, which is a whole number from 2 to 12"),
        ("depth!=2..deep", "names no value of depth"),
        ("depth!=..", "names no value of depth"),
        ("depth>12", "Nothing is left of depth"),
        ("depth<2", "Nothing is left of depth"),
        ("depth!=0..12", "Nothing is left of depth"),
        ("depth!=2,4,6,8,10,12", "Nothing is left of depth"),
        ("batch!=48", "names no value of batch, which is one of 16, 32, 64"),
        ("batch>64", "Nothing is left of batch"),
    ],
)
def test_what_the_space_lacks_is_told_with_what_it_has(condition: str, complaint: str) -> None:
    with pytest.raises(BadSpace, match=complaint):
        narrowed(SPACE, [condition])


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("lr!=0.01", r"can't have a hole at 0.01: write lr<0.01 or lr>0.01\."),
        ("lr!=1e-3..0.01", r"can't have a hole at 0.001..0.01: write lr<0.001 or lr>0.01\."),
        ("lr!=1,0.5", r"lr is a number from 0.0001 to 0.999999, which can't have a hole at 0.5"),
        ("steps!=5", r"a whole number from 1 to 1e\+06, which can't have a hole at 5"),
    ],
)
def test_a_hole_in_a_continuum_or_in_a_huge_grid_is_refused(condition: str, complaint: str) -> None:
    huge = {"type": "int", "low": 1, "high": 1_000_000}
    space = SearchSpace.from_dict({**WIDE.to_dict(), "steps": huge})
    with pytest.raises(BadSpace, match=complaint):
        narrowed(space, [condition])


def test_strict_ends_are_beside_the_number_on_any_scale() -> None:
    def ends(low: float, high: float, *where: str, log: bool = False) -> tuple[float, float]:
        left = narrowed(SearchSpace({"x": Float(low=low, high=high, log=log)}), where).params["x"]
        assert isinstance(left, Float)
        return left.low, left.high

    assert ends(-1.0, 1.0, "x<0") == (-1.0, -1e-5)
    assert ends(0.0, 1000.0, "x>0", "x<250") == (0.001, 249.999)
    assert ends(1000.0, 1001.0, "x<1000.5", log=True) == (1000.0, 1000.499999)
    low, high = ends(1e6, 1e6 + 1e-7, f"x>{1e6!r}")
    assert 1e6 < low < high
    cramped = narrowed(SearchSpace({"x": Float(low=0.0, high=1.0)}), ["x<1e-9"]).params["x"]
    assert cramped == Categorical(choices=(0.0,))


def test_conditions_that_exclude_each_other_are_told() -> None:
    with pytest.raises(BadSpace, match="left of depth: it exists only where model is tree"):
        narrowed(SPACE, ["depth=4", "model=mlp"])
    with pytest.raises(BadSpace, match="it is one of mlp"):
        narrowed(SPACE, ["model=mlp", "model=tree"])


@pytest.mark.parametrize("condition", ["model", "=mlp", "model=", "", " = ", "!=mlp", "lr<", ">3"])
def test_a_condition_without_a_name_or_values_is_a_wrong_argument(condition: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUES, such as"):
        narrowed(SPACE, [condition])


@pytest.mark.parametrize("where", [["model=mlp"], ["model=mlp", "layers=4", "lr=0.01"]])
def test_a_search_keeps_what_is_fixed(where: list[str]) -> None:
    space = SearchSpace.from_dict(
        {
            "model": {"type": "categorical", "choices": ["mlp", "tree"]},
            **WIDE.to_dict(),
            "x": {"type": "float", "low": 0.0, "high": 1.0},
        }
    )
    part = narrowed(space, where)
    start = space.sample(20, np.random.default_rng(0))

    def worth(configs: list[Config]) -> np.ndarray:
        return np.array([-abs(float(c["x"]) - 0.4) for c in configs])

    found = local_search(part, worth, start=start, rng=np.random.default_rng(0))
    assert all(part.holds(c) and set(c) == set(space.names) for c in found.configs)
    assert len({c["x"] for c in found.configs}) > 100
    assert abs(found.configs[0]["x"] - 0.4) < 0.01


def test_a_config_is_held_to_what_it_sets() -> None:
    part = narrowed(SPACE, ["model=tree", "depth=4"])
    assert part.holds({"model": "tree", "seed": 3})
    assert part.holds({"depth": 5, "batch": 16})  # exists only under a model, which is not said
    assert not part.holds({"model": "tree", "depth": 5})
    assert not part.holds({"model": "mlp", "depth": 4})
    assert not part.holds({"batch": 17})


def test_numbers_are_allowed_to_twelve_digits_and_a_bool_is_none() -> None:
    drop = SPACE.params["drop"]
    assert allows(drop, 0.1 + 0.2) and not allows(drop, 0.301) and not allows(drop, True)
    assert not allows(Integer(low=0, high=5), 1.5)
    assert not allows(Float(low=0.0, high=1.0), math.nan)
