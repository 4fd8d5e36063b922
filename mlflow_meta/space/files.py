"""Search-space files: what was inferred is written, and what people have edited is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import yaml

from mlflow_meta.errors import BadSpace
from mlflow_meta.space.constraints import check_choices, read_constraints
from mlflow_meta.space.decisions import one_line
from mlflow_meta.space.parts import hint
from mlflow_meta.space.search_space import SearchSpace, is_document

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$", re.ASCII)
_KEYS = ("parameters", "constraints", "left_out")  # of a search-space file


class _Loader(yaml.SafeLoader):
    """Reads `1e-5` as the number that it is; YAML 1.1 wants a dot and a sign in it."""


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would take for a number."""


for _cls in (_Loader, _Dumper):
    _cls.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


@dataclass(frozen=True, slots=True)
class InferredSpace:
    """A search space, and what became of the params that are no part of it.

    Attributes:
        space: What the trials varied.
        left_out: Param -> why it is not searched.
        remarks: Param -> under which condition it exists, and what speaks for that.
    """

    space: SearchSpace
    left_out: Mapping[str, str]
    remarks: Mapping[str, str] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The file that people edit; `read_yaml` reads it back."""
        plain = self.space.to_dict()
        document = plain if is_document(plain) else {"parameters": plain}
        document = {**document, "left_out": dict(self.left_out)}
        head = (
            "# What mlflow-meta searches. Edit ranges, delete what should stay as it is, add what\n"
            "# was never tried; then pass this file with --space. Types: float, int, categorical;\n"
            "# `log: true` for a logarithmic scale, `step` for a grid, and\n"
            "# `when: {model: [mlp]}` for a param that exists only under some value of another.\n"
            "# What has to hold between params may be listed under `constraints:`, such as\n"
            "# `- batch_size * accumulate <= 4096`.\n"
        )
        head += "".join(f"# {one_line(f'{name} {said}')}.\n" for name, said in self.remarks.items())
        return head + yaml.dump(
            document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
        )


def read_yaml(text: str) -> SearchSpace:
    """Read a search-space file: `parameters:` as `SearchSpace.from_dict` has it, or that alone.

    With `parameters:` there may be `constraints:`, a list of expressions over params.

    Raises:
        BadSpace: If it is no YAML, or says something that can't be; with the param or the line.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "it can't be read"
        raise BadSpace(f"The search-space file is no YAML: {problem}{line}.") from error
    if not isinstance(document, Mapping):
        raise BadSpace(f"A search-space file needs `parameters:`, but this one holds {document!r}.")
    if not is_document(document):
        return SearchSpace.from_dict(document)
    if strange := [str(key) for key in document if key not in _KEYS]:
        raise BadSpace(
            f"A search-space file has {', '.join(_KEYS)}, but this one has {strange[0]!r}"
            f"{hint(strange[0], _KEYS)}."
        )
    space = SearchSpace.from_dict(document["parameters"])
    if document.get("constraints") is None:
        return space
    constraints = read_constraints(
        document["constraints"], space.params, _places(text), check_choices
    )
    space = replace(space, constraints=constraints)
    space.sample(1, np.random.default_rng(0))  # where nothing meets them, it is said here
    return space


def _places(text: str) -> list[str]:
    """Where each constraint of a file stands."""
    root = yaml.compose(text, Loader=_Loader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    lists = [value for key, value in pairs if key.value == "constraints"]
    return [
        f"the constraint in line {item.start_mark.line + 1}"
        for node in lists
        if isinstance(node, yaml.SequenceNode)
        for item in node.value
    ]
