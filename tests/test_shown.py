"""Texts from runs are shown, and do nothing: in a terminal, in Markdown, in CSV, in a picture."""

import csv
import io
import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import PAYLOADS

from mlflow_meta import shown
from mlflow_meta.cli import show, show_training, terminal
from mlflow_meta.gate import Comparison
from mlflow_meta.pictures import importance
from mlflow_meta.promotion import Decision

CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def is_safe(text: str) -> bool:
    """Whether no character moves a cursor, ends a line or turns a direction."""
    return not any(
        unicodedata.category(c) in CONTROLS or unicodedata.bidirectional(c) in TURNING for c in text
    )


def test_there_are_enough_payloads() -> None:
    assert len(set(PAYLOADS)) >= 30


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_payload_is_one_line_without_a_control_character(payload: str) -> None:
    assert is_safe(shown.line(payload))
    assert shown.line(shown.line(payload)) == shown.line(payload)


@given(st.floats(-1e300, 1e300).filter(lambda x: x == 0 or abs(x) > 1e-300))
def test_a_prediction_is_shown_alike_before_and_after_mlflow_has_kept_it(value: float) -> None:
    assert shown.number(value) == shown.number(shown.kept(value))
    assert float(shown.number(value)) == pytest.approx(value, rel=6e-5)


def test_what_rounding_twice_would_tear_apart_is_one_text() -> None:
    assert shown.number(0.15151499999) == shown.number(0.151515)
    assert shown.number(float("nan")) == shown.share(float("nan")) == "-"
    assert shown.share(0.777) == "78%"


@pytest.mark.parametrize(
    ("gain", "low", "words"),
    [
        (0.061, 0.02, "(error smaller by 0.061, surely by 0.02, on 9 runs; 78% of them in"),
        (0.061, -0.02, "(error smaller by 0.061, on 9 runs;"),
        (-0.061, -0.2, "(error larger by 0.061, on 9 runs;"),
    ],
)
def test_a_gain_is_told_by_its_sign_in_words(gain: float, low: float, words: str) -> None:
    found = Comparison(n=9, gain=gain, gain_low=low, coverage=0.777, covers=True)
    decision = Decision(verdict=found.verdict, champion="1", comparison=found)
    assert words in show_training.decision(decision)


def test_half_a_character_is_spelt_out() -> None:
    assert shown.line("a\ud800") == r"a\ud800"


def test_what_can_be_read_stays_as_it_is() -> None:
    for text in ("lr", "学习率", "caf\u00e9", "👨\u200d👩\u200d👧", "a b/c.d:e-f_g", "معدل"):
        assert shown.line(text) == text


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_terminal_gets_no_control_character_but_ends_of_lines(
    payload: str, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.echo(f"Experiment {payload} is not there.")
    show.table([payload, "rank"], [[payload, 1.5]])
    assert is_safe(capsys.readouterr().out.replace("\n", ""))


def test_markup_of_rich_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(["[red]a[/]"], [["[link=http://evil]b[/link] [/]\\"]])
    out = capsys.readouterr().out
    assert "[red]a[/]" in out
    assert "[link=http://evil]b[/link] [/]\\" in out


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_cell_of_csv_never_begins_a_formula(payload: str) -> None:
    frame = pd.DataFrame({payload: [payload, "plain"], "number": [-1.5, 2.0]})
    rows = list(csv.reader(io.StringIO(shown.csv(frame).decode(), newline="")))
    for cell in (rows[0][0], rows[1][0]):
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        assert cell in (payload, f"'{payload}")
    assert rows[1][1] == "-1.5", "numbers stay numbers"


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_markdown_has_a_payload_in_code_alone(payload: str) -> None:
    for text in (shown.code(payload), shown.cell(payload)):
        assert is_safe(text)
        if "<" in payload:
            assert not set(text.replace("&#", "")) & set("<>`[](){}!*_#|:/\\")
            continue
        assert text.startswith("`") and text.endswith("`") and len(text) > 2
        assert "`" not in text[1:-1]
    assert "|" not in shown.cell(payload).replace(r"\|", "")


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_a_picture_is_drawn_whatever_a_param_is_called(payload: str) -> None:
    frame = pd.DataFrame({"param": [payload], "permutation": [1.0], "ped_anova": [1.0], "n": [3]})
    assert importance(frame).startswith(b"\x89PNG")
