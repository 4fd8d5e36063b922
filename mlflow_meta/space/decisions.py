"""What a person has decided of a suggested run, by the tags that they set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

DECISION = "mlflow_meta.decision"
REASON = "mlflow_meta.reason"
KEEP = "mlflow_meta.keep"
MAX_SHOWN = 80  # characters of a person's text in a remark
_APPROVED = frozenset({"approve", "approved", "accept", "accepted", "yes", "ok"})
_REJECTED = frozenset({"reject", "rejected", "decline", "declined", "no"})
_KEPT = frozenset({"keep", "kept"})
_NO = frozenset({"", "no", "false", "0", "off", "none"})


class Verdict(Enum):
    """What a person has decided."""

    APPROVED = "approved"
    REJECTED = "rejected"
    KEPT = "kept"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person has decided about a run.

    Attributes:
        verdict: What.
        reason: Why, in the person's own words; empty where they say nothing.
        remark: Why it can't be read, where it can't; the verdict is then `NONE`.
    """

    verdict: Verdict
    reason: str = ""
    remark: str = ""


def decision_of(tags: Mapping[str, str]) -> Decision:
    """What a person has decided about a run with these tags.

    Upper and lower case are one, and space, quotes and a full stop around the word are ignored:
    `approve`, `approved`, `accept`, `accepted`, `yes`, `ok`; `reject`, `rejected`, `decline`,
    `declined`, `no`; and `keep`, `kept`, which lets a run that trains go on. A word that is none of
    these decides nothing, and the remark says so.

    Example:
        >>> decision_of({"mlflow_meta.decision": "Rejected: not lr>0.1"}).reason
        'not lr>0.1'
    """
    said, _, behind = tags.get(DECISION, "").partition(":")
    word = _word(said)
    reasons = [text.strip() for text in (behind, tags.get(REASON, "")) if text.strip()]
    reason = "\n".join(dict.fromkeys(reasons))
    if word in _APPROVED:
        return Decision(verdict=Verdict.APPROVED, reason=reason)
    if word in _REJECTED:
        return Decision(verdict=Verdict.REJECTED, reason=reason)
    if word in _KEPT:
        return Decision(verdict=Verdict.KEPT, reason=reason)
    remark = ""
    if word:
        remark = (
            f"The tag {DECISION} says {short(said)!r}, which decides nothing: write approve or "
            "reject, and a reason behind a colon."
        )
    elif reasons:
        remark = (
            f"There is a reason, but the tag {DECISION} decides nothing: write approve or reject."
        )
    return Decision(verdict=Verdict.NONE, reason=reason, remark=remark)


def is_yes(text: str) -> bool:
    """Whether a tag's text says yes: all but an empty one, `false`, `no`, `0`, `off` and `none`."""
    return _word(text) not in _NO


def _word(text: str) -> str:
    """A word as people may write it, without what does not matter around it."""
    return text.strip(" \t\r\n.!\"'`").casefold()


def is_kept(tags: Mapping[str, str]) -> bool:
    """Whether a person wants a run to go on, whatever is expected of it.

    Either tag says so: `mlflow_meta.keep` = `true`, or `mlflow_meta.decision` = `keep`.

    Example:
        >>> is_kept({"mlflow_meta.keep": "true"}), is_kept({"mlflow_meta.keep": "no"})
        (True, False)
    """
    return is_yes(tags.get(KEEP, "")) or decision_of(tags).verdict is Verdict.KEPT


def short(text: str) -> str:
    """A person's text, cut to what a remark can bear."""
    plain = one_line(text)
    return plain if len(plain) <= MAX_SHOWN else f"{plain[:MAX_SHOWN]}..."


def one_line(text: str) -> str:
    """A text on one line, without what a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
