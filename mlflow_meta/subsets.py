"""Params that list what was used, such as `features=age,bmi,s5`: each item is a choice of its own.

A harvest turns `features` into one flag an item, and a suggestion turns its flags back into one
text, spelt as history has it. How that is stands in the flag's own name, so that nothing else has
to know:

    features{age}       age,bmi            features{'age'}     ['age', 'bmi']
    features{, age}     age, bmi           features{"age"}     ["age", "bmi"]
    features{;age}      age;bmi            and so with | and +

A text is no such list where its items stand in another order in another text (a sequence of steps,
not a set), unless the param's name says that it lists columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from mlflow_meta.columns import is_choice, number_of
from mlflow_meta.trials import Config, ConfigValue

MAX_ITEMS = 200  # different ones of one param
MAX_TEXTS = 20  # different texts up to which a param is one of listed choices
_SEPARATORS = (", ", ",", ";", "|", "+")
_COMMA = ","  # the usual one, which a flag's name leaves out
_COLUMNS = re.compile(
    r"(^|[._/ -])(features?|columns?|cols|predictors|covariates)([._ -]?(names|list|used|set))?$",
    re.I,
)
_ITEM = re.compile(r"[^\s,;|+'\"\[\]{}=][^,;|+'\"\[\]{}=]*")
_FLAG = re.compile(
    r"(?P<name>.+)\{(?P<mark>, |[;|+]|['\"]|)(?P<item>" + _ITEM.pattern + r")['\"]?\}"
)


def items_of(name: str, texts: Iterable[str]) -> dict[str, frozenset[str]] | None:
    """The flags that stand for a param that lists items, each with the texts in which it is set.

    Args:
        name: The param.
        texts: Its different values.

    Returns:
        None where the texts are no lists of items: then they are what they are.
    """
    distinct = list(dict.fromkeys(texts))
    is_named = _COLUMNS.search(name) is not None
    if len(distinct) < 2 or not (is_named or len(distinct) > MAX_TEXTS):
        return None
    found = next(filter(None, (_split(distinct, mark) for mark in (*"'\"", *_SEPARATORS))), None)
    if found is None:
        return None
    mark, lists = found
    items = _in_order(lists)
    if items is None and is_named:
        items = sorted({item for listed in lists for item in listed})
    if items is None or not 2 <= len(items) <= MAX_ITEMS:
        return None
    if not is_named and (len(items) >= len(distinct) or all(map(_is_number, items))):
        return None
    sets = list(zip(distinct, map(set, lists), strict=True))
    return {
        _flag(name, mark, item): frozenset(text for text, listed in sets if item in listed)
        for item in items
    }


def list_of(flag: str) -> str | None:
    """The param whose item a flag stands for; None where it is no flag."""
    found = _FLAG.fullmatch(flag)
    return found["name"] if found else None


def folded(config: Config) -> dict[str, ConfigValue]:
    """`config` with its flags as the texts that history has; what is no flag stays as it is."""
    whole: dict[str, ConfigValue] = {}
    lists: dict[str, tuple[str, list[str]]] = {}
    for name, value in config.items():
        flag = _FLAG.fullmatch(name) if isinstance(value, bool) else None
        if flag is None:
            whole[name] = value
            continue
        whole.setdefault(flag["name"], "")  # keeps its place
        _, items = lists.setdefault(flag["name"], (flag["mark"], []))
        if value:
            items.append(flag["item"])
    return whole | {name: _joined(mark, items) for name, (mark, items) in lists.items()}


def unfolded(texts: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """`texts` as MLflow keeps them, with the flags among `names` that they set and leave out."""
    flags = {name: flag for name in names if (flag := _FLAG.fullmatch(name))}
    found = dict(texts)
    for name, flag in flags.items():
        if flag["name"] in texts and name not in texts:
            listed = _items(str(texts[flag["name"]]), flag["mark"] or _COMMA)
            if listed is not None:
                found[name] = str(flag["item"] in listed)
    return found


def _split(texts: Sequence[str], mark: str) -> tuple[str, list[list[str]]] | None:
    """The mark and each text's items, where every text is a list of this kind, some of several."""
    lists = []
    for text in texts:
        items = _items(text, mark)
        if items is None:
            return None
        lists.append(items)
    return (mark, lists) if max(map(len, lists)) > 1 else None


def _items(text: str, mark: str) -> list[str] | None:
    """The items of one text; None where it is no list of this kind."""
    if mark in "'\"":
        if not (text.startswith("[") and text.endswith("]")):
            return None
        parts = [part.strip() for part in text[1:-1].split(",")] if text[1:-1].strip() else []
        if not all(len(part) > 2 and part[0] == part[-1] == mark for part in parts):
            return None
        items = [part[1:-1] for part in parts]
    else:
        items = text.split(mark) if text else []
    is_list = all(_ITEM.fullmatch(item) and is_choice(item) for item in items)
    return items if is_list and len(set(items)) == len(items) else None


def _joined(mark: str, items: Sequence[str]) -> str:
    if mark and mark in "'\"":
        return f"[{', '.join(f'{mark}{item}{mark}' for item in items)}]"
    return (mark or _COMMA).join(items)


def _flag(name: str, mark: str, item: str) -> str:
    end = mark if mark in "'\"" else ""
    return f"{name}{{{'' if mark == _COMMA else mark}{item}{end}}}"


def _in_order(lists: Sequence[Sequence[str]]) -> list[str] | None:
    """All items in the order that each of the lists has; None where two lists differ in it."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for listed in lists:
        for item in listed:
            order.add(item)
        for before, after in pairwise(listed):
            order.add(after, before)
    try:
        return list(order.static_order())
    except CycleError:
        return None


def _is_number(item: str) -> bool:
    return number_of(item) is not None
