"""Tests for space/rejections.py: what people decide, and what their reasons leave of a space."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_meta.space import (
    Rejection,
    SearchSpace,
    Verdict,
    constrained,
    decision_of,
    narrowed,
)
from mlflow_meta.trials import Config

SPACE = SearchSpace.from_dict(
    {
        "model": {"type": "categorical", "choices": ["mlp", "tree", "svm, rbf"]},
        "depth": {"type": "int", "low": 2, "high": 12, "step": 2, "when": {"model": ["tree"]}},
        "batch": {"type": "categorical", "choices": [16, 32, 64], "log": True},
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "drop": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1, "when": {"model": ["mlp"]}},
        "flag": {"type": "categorical", "choices": [False, True], "when": {"drop": [0.1, 0.2]}},
        "units": {"type": "int", "low": 1, "high": 200, "log": True},
        "x": {"type": "float", "low": -1.0, "high": 3.0},
    }
)
CONFIG = {"model": "tree", "depth": "4", "batch": "32", "lr": "0.5", "units": "7", "x": "0.25"}


VALID = {"model": "tree", "depth": 4, "batch": 32, "units": 7, "x": 0.25}


def left_by(
    space: SearchSpace, rejections: Sequence[Rejection]
) -> tuple[SearchSpace, tuple[str, ...]]:
    """What rejections leave, and what constrains nothing."""
    found = constrained(space, rejections)
    return found.space, found.remarks


def no(reason: str, run: str = "run-a") -> Rejection:
    return Rejection(run=run, config=CONFIG, reason=reason)


def only(reason: str) -> str:
    """The one remark on a reason, which has changed nothing."""
    part, remarks = left_by(SPACE, [no(reason)])
    assert part == SPACE
    (remark,) = remarks
    return remark


@pytest.mark.parametrize(
    ("text", "verdict", "reason"),
    [
        ("approve", Verdict.APPROVED, ""),
        (" Approved. ", Verdict.APPROVED, ""),
        ("OK: looks fine", Verdict.APPROVED, "looks fine"),
        ("reject", Verdict.REJECTED, ""),
        ("Reject", Verdict.REJECTED, ""),
        ("REJECTED!", Verdict.REJECTED, ""),
        ("'no'", Verdict.REJECTED, ""),
        ("reject: batch_size<=64", Verdict.REJECTED, "batch_size<=64"),
        ("rejected :\n lr < 1 ; a:b ", Verdict.REJECTED, "lr < 1 ; a:b"),
        ("", Verdict.NONE, ""),
    ],
)
def test_a_decision_is_read_however_it_is_spelled(text: str, verdict: Verdict, reason: str) -> None:
    found = decision_of({"mlflow_meta.decision": text, "mlflow_meta.rank": "1"})
    assert (found.verdict, found.reason, found.remark) == (verdict, reason, "")


@pytest.mark.parametrize("text", ["rejct", "maybe", "no objection", "reject batch<64", "approve?"])
def test_what_can_not_be_read_decides_nothing_and_says_so(text: str) -> None:
    found = decision_of({"mlflow_meta.decision": text})
    assert found.verdict is Verdict.NONE
    assert f"says {text!r}, which decides nothing: write approve or reject" in found.remark


def test_a_reason_may_stand_in_a_tag_of_its_own_and_both_count() -> None:
    tags = {"mlflow_meta.decision": "reject", "mlflow_meta.reason": " lr<0.1 "}
    assert decision_of(tags).reason == "lr<0.1"
    assert decision_of({**tags, "mlflow_meta.decision": "reject: lr<0.1"}).reason == "lr<0.1"
    assert decision_of({**tags, "mlflow_meta.decision": "no: batch"}).reason == "batch\nlr<0.1"
    assert decision_of({}).remark == ""
    undecided = decision_of({"mlflow_meta.reason": "lr<0.1"})
    assert undecided.verdict is Verdict.NONE
    assert "There is a reason, but" in undecided.remark


@pytest.mark.parametrize(
    ("reason", "where"),
    [
        ("only batch<=32", ["batch<=32"]),
        ("not batch<=32", ["batch=64"]),
        ("batch<=32", ["batch=64"]),  # its own is 32: what it is was wrong
        ("batch>32", ["batch=64"]),  # and this is what it should have been
        ("model=mlp", ["model=mlp"]),
        ("model=tree", ["model!=tree"]),
        ("model!=tree", ["model!=tree"]),
        ("model!=mlp", ["model=mlp"]),
        ("lr>0.1", ["lr<=0.1"]),
        ("lr<0.1", ["lr<0.1"]),
        ("lr=0.1..1; batch=16,32", ["lr<0.1", "batch=64"]),
        ("never lr>=0.1 and avoid model=tree", ["lr<0.1", "model!=tree"]),
        ("keep lr>=0.1 ; not model", ["lr>=0.1", "model!=tree"]),
        ("drop<0.3", ["drop<0.3"]),  # it has none
        ("model!=tree; lr<0.1", ["model!=tree", "lr<0.1"]),
        ("lr < 0.1 AND only lr >= 0.001\nuse batch=16,32", ["lr<0.1", "lr>=0.001", "batch=16,32"]),
        ("model", ["model!=tree"]),
        ("batch and depth>4", ["batch!=32", "depth>4"]),
        (" ;; lr<0.1 ; ", ["lr<0.1"]),
        ("", []),
    ],
)
def test_a_reason_narrows_the_space_as_where_does(reason: str, where: Sequence[str]) -> None:
    assert left_by(SPACE, [no(reason)]) == (narrowed(SPACE, where), ())


def test_what_was_understood_is_told_and_kept_for_the_run() -> None:
    first = Rejection(run="suggested 1", config=CONFIG, reason="lr>0.1; model", run_id="1")
    second = Rejection(run="suggested 2", config=CONFIG, reason="units>50; drop<0.3", run_id="2")
    third = Rejection(run="suggested 3", config=CONFIG, reason="only batch<=32", run_id="3")
    found = constrained(SPACE, [first, second, third])
    assert found.held == (
        "suggested 3 was rejected since 'only batch<=32': from now on batch<=32.",
        "suggested 2 was rejected since 'units>50', and its units = 7 is not: from now on "
        "units>50.",
        "suggested 2 was rejected since 'drop<0.3', and it has no drop: from now on drop<0.3.",
        "suggested 1 was rejected since 'lr>0.1', and its lr = 0.5 is: from now on lr<=0.1.",
        "suggested 1 was rejected for its model: from now on model!=tree.",
    )
    assert found.remarks == ()
    assert found.understood == {
        "1": "from now on lr<=0.1, model!=tree",
        "2": "from now on units>50, drop<0.3",
        "3": "from now on batch<=32",
    }


@settings(max_examples=100)
@given(st.integers(1, 999), st.integers(1, 999), st.sampled_from(["<", "<=", ">", ">="]))
def test_a_bare_condition_never_lets_the_rejected_value_pass(
    own: int, end: int, relation: str
) -> None:
    run = Rejection(run="a", config={"lr": repr(own / 1000)}, reason=f"lr{relation}{end / 1000!r}")
    found = constrained(SPACE, [run])
    assert SPACE.holds({**VALID, "lr": own / 1000})
    assert found.remarks or not found.space.holds({**VALID, "lr": own / 1000})


def test_a_choice_with_commas_is_excluded_as_it_is() -> None:
    svm = Rejection(run="a", config={"model": "svm, rbf"}, reason="model")
    assert left_by(SPACE, [svm])[0].params["model"].choices == ("mlp", "tree")


def test_reasons_add_up_and_a_second_one_of_the_same_is_nothing_new() -> None:
    reasons = ["lr<0.1", "model", "only lr>0.001; depth>6", "model; lr<0.1"]
    part, remarks = left_by(SPACE, [no(reason, f"run-{i}") for i, reason in enumerate(reasons)])
    assert remarks == ()
    assert part == narrowed(SPACE, ["lr<0.1", "model!=tree", "lr>0.001"])
    assert "depth" not in part.params  # it exists under tree alone, so what it is held to is void


def test_the_newest_of_two_that_exclude_each_other_holds() -> None:
    part, remarks = left_by(SPACE, [no("lr>0.5; batch=16", "old"), no("lr<0.1", "new")])
    assert part == narrowed(SPACE, ["lr<0.1", "batch=16"])
    assert remarks == (
        "old has a reason that can't hold: lr>0.5 leaves nothing of lr beside lr<0.1 (new). The "
        "newest rejection counts, and of one rejection what stands first.",
    )
    part, remarks = left_by(SPACE, [no("model=mlp; only model=tree")])
    assert part == narrowed(SPACE, ["model=mlp"])
    assert len(remarks) == 1


def test_the_last_choice_stays_and_is_told() -> None:
    rejections = [
        Rejection(run=name, config={"model": name}, reason="model")
        for name in ("mlp", "tree", "svm, rbf")
    ]
    part, remarks = left_by(SPACE, rejections)
    assert part.params["model"].choices == ("mlp",)
    assert "model!=mlp leaves nothing of model beside model!=svm, rbf (svm, rbf)" in remarks[0]


@pytest.mark.parametrize(
    ("reason", "remark"),
    [
        ("lr", "run-a was rejected for its lr, which says no direction: write only lr<0.5 or on"),
        ("depth", "run-a was rejected for its depth, which says no direction: write only depth<4"),
        ("drop", "run-a was rejected for its drop, but it has none."),
        ("modle=mlp", "run-a was rejected for its modle, which is not searched (did you mean mod"),
        ("loss > 5% of all", "run-a was rejected for its loss, which is not searched"),
        ("lr>1", "run-a has a reason that can't hold: lr>1 leaves nothing of lr, which is a num"),
        ("model=mpl", "nothing of model, which is one of mlp, tree, svm, rbf (did you mean mlp?)."),
        (
            "only model!=mpl",
            "model!=mpl names no value of model, which is one of mlp, tree, svm, rbf",
        ),
        (
            "only lr!=0.5",
            "can't hold: lr is a number from 0.0001 to 1, which can't have a hole",
        ),
        ("model>2", "can't hold: model>2 says more or less of model"),
        ("depth<deep", "can't hold: depth<deep compares depth with 'deep', no number."),
    ],
)
def test_a_reason_that_can_not_hold_is_a_remark_with_the_run(reason: str, remark: str) -> None:
    assert remark in only(reason)


def test_a_free_text_is_told_once_with_what_could_be_written() -> None:
    assert only("far too slow and; ugly") == (
        "run-a was rejected since 'far too slow and; ugly', which constrains nothing. What the "
        "next search keeps to is such as not depth>4, only depth>4, not model=tree."
    )
    part, remarks = left_by(SPACE, [no("too slow; batch<32"), no("why?", "run-b")])
    assert part == narrowed(SPACE, ["batch<32"])
    assert [remark.split()[0] for remark in remarks] == ["run-b", "run-a"]


def test_a_text_from_the_server_can_not_speak_to_the_terminal() -> None:
    texts = ["\x1b[2Jgone", "lr\x1b[2J<1", "model=\x1b[2J", "lr<\x07", "x" * 5000]
    _, remarks = left_by(SPACE, [no(text, "\x1b[31mrun\nb") for text in texts])
    assert len(remarks) == len(texts)
    assert all(remark.isprintable() and len(remark) < 400 for remark in remarks)


def test_a_param_that_is_searched_no_more_or_a_value_that_is_gone_is_nothing_to_exclude() -> None:
    gone = Rejection(run="a", config={"model": "forest", "seed": "3"}, reason="model")
    assert left_by(SPACE, [gone]) == (SPACE, ())
    seed = Rejection(run="a", config={"seed": "3"}, reason="seed")
    assert "rejected for its seed, which is not searched." in left_by(SPACE, [seed])[1][0]


# Against a second reading of the same conditions, one value at a time.

RELATIONS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
NUMBERS = {
    "depth": st.integers(0, 14),
    "batch": st.sampled_from([16, 32, 64]),
    "lr": st.integers(-50, 5).map(lambda i: float(f"{10 ** (i / 10):.3g}")),
    "drop": st.integers(-1, 6).map(lambda i: round(i / 10, 1)) | st.sampled_from([0.05, 0.33]),
    "units": st.integers(0, 210),
    "x": st.integers(-110, 310).map(lambda i: i / 100),
}
Term = tuple[str, str, tuple[object, ...]]


@st.composite
def terms(draw: st.DrawFn) -> Term:
    """A condition: param, relation (`in` and `out` for lists, `to` and `not to` for ranges)."""
    name = draw(st.sampled_from(SPACE.names))
    if name in NUMBERS:
        relation = draw(st.sampled_from([*RELATIONS, "to", "not to"]))
        n = 2 if "to" in relation else 1
        return name, relation, tuple(sorted(draw(NUMBERS[name]) for _ in range(n)))
    choices = SPACE.params[name].choices
    some = draw(st.lists(st.sampled_from(choices), min_size=1, unique=True))
    return name, draw(st.sampled_from(["in", "out"])), tuple(some)


def written(term: Term) -> str:
    name, relation, values = term
    if relation in RELATIONS:
        return f"{name} {relation} {values[0]}"
    between = ".." if "to" in relation else ","
    return f"{name}{'=' if relation in ('in', 'to') else '!='}{between.join(map(str, values))}"


def satisfied(term: Term, config: Config) -> bool:
    name, relation, values = term
    if name not in config:
        return True
    value = config[name]
    if relation in RELATIONS:
        return bool(RELATIONS[relation](value, values[0]))
    if "to" in relation:
        return (values[0] <= value <= values[1]) == (relation == "to")
    return (value in values) == (relation == "in")


@settings(max_examples=300)
@given(st.lists(terms(), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_what_is_left_is_exactly_where_all_that_hold_are_satisfied(
    reasons: list[Term], seed: int
) -> None:
    rejections = [no(f"only {written(term)}", f"run-{i}") for i, term in enumerate(reasons)]
    part, remarks = left_by(SPACE, rejections)
    told = {remark.split()[0] for remark in remarks}
    held = [term for i, term in enumerate(reasons) if f"run-{i}" not in told]
    assert len(remarks) == len(told) == len(reasons) - len(held)
    rng = np.random.default_rng(seed)
    for config in part.sample(30, rng):
        assert all(satisfied(term, config) for term in held), config
        assert SPACE.holds(config) and set(config) <= set(SPACE.names)
    for config in SPACE.sample(30, rng):
        if all(satisfied(term, config) for term in held):
            assert part.holds(config) and set(config) <= set(part.names), config


@settings(max_examples=200)
@given(
    st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.sampled_from(["lr", "x"]),
    st.sampled_from(["<", ">"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_strict_end_of_any_digits_loses_one_unit_of_the_sixth_digit_at_most(
    end: float, value: float, name: str, relation: str, seed: int
) -> None:
    part, remarks = left_by(SPACE, [no(f"only {name}{relation}{end!r}")])
    if remarks:
        return
    values = [config[name] for config in part.sample(20, np.random.default_rng(seed))]
    assert all(RELATIONS[relation](found, end) for found in values)
    unit = 1e-6 * end if name == "lr" else 1e-5
    if RELATIONS[relation](value, end) and abs(value - end) > 1.001 * unit:
        assert part.holds({name: value})


def test_conditions_joined_by_or_are_not_kept_to_and_are_quoted_as_they_were_written() -> None:
    part, remarks = left_by(SPACE, [no("not layers>5 or lr>0.1")])
    assert part == SPACE
    assert "since 'not layers>5 or lr>0.1': conditions joined by 'or' are not kept" in remarks[0]
