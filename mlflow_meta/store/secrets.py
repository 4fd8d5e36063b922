"""Secrets are replaced before anything is stored: by the name they go under, and by their look.

A secret that is kept may be read by all who read the data set; a false alarm costs a
hyperparameter. So a name that says `password` is enough, one that says `key` only where the value
looks random too, and by its look alone only what has an issuer's own shape is a secret: git hashes,
digests and UUIDs have the same as those of many.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REDACTED = "[redacted]"
SHORTEST_BYTES = 8  # no text of fewer is a secret by its look; spares most of the numbers
RANDOM_CHARS = 16  # fewer don't look random
PART_CHARS = 12  # nor do those of an identifier's parts, e.g. `resnet50d`, that are shorter

_OF_KEYS = (
    "access|account|api|auth|bearer|encryption|master|private|refresh|secret|security|session"
    "|signing|ssh|storage"
)
_STRONG = re.compile(
    rf".*(?:password|passwd|passphrase|secret|credential|(?:{_OF_KEYS})(?:key|token))s?"
    r"|(?:db|ftp|pg|smtp|user)pass|pwd|bearer|authorization"
)
"""A word, or two in a row, of a name that says secret enough."""
_WEAK = re.compile("token|auth|key|pat")
"""A name's last word that says it only together with a value that looks random."""
_ABOUT = re.compile(
    "column|count|dim|dir|dropout|enabled|env|field|file|folder|hint|index|len|length|layers?|loss"
    "|name|path|policy|prob|required|rotation|score|size|strength|type|validator"
)
"""A name's last word, if it is something about a secret: `password_length`, `secret_layer`."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PLAIN = (
    r"(?i:[-+]?[0-9]{0,12}(?:\.[0-9]*)?(?:e[-+]?[0-9]{1,3})?"
    r"|true|false|yes|no|none|null|nan|\[redacted\]|\*+)"
)
"""What is no secret even under a secret's name."""

_ISSUED = "|".join(
    [
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\bgh[opsur]_[A-Za-z0-9]{30,}",
        r"\bgithub_pat_[A-Za-z0-9_]{22,}",
        r"\bglpat-[A-Za-z0-9_-]{20,}",
        r"\bhf_[A-Za-z0-9]{30,}",
        r"\bnpm_[A-Za-z0-9]{36}",
        r"\bdapi[0-9a-f]{32}",
        r"\bsk-[A-Za-z0-9]{32,}",
        r"\bsk-(?:ant|proj|svcacct|admin)-[A-Za-z0-9_-]{32,}",
        r"\b[rs]k_live_[A-Za-z0-9]{20,}",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        r"hooks\.slack\.com/services/T[A-Za-z0-9]+/B[A-Za-z0-9]+/[A-Za-z0-9]+",
        r"\bAIza[A-Za-z0-9_-]{35}",
        r"\bya29\.[A-Za-z0-9_-]{20,}",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",
        r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY",
        r"[?&](?:sig|X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature)=[A-Za-z0-9%/+_-]{16,}",
    ]
)
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
_LOGIN = r"[^\s/:\"']*:[^\s/\"']+@"
_IS = r"(?:\\?[\"'])?\s{0,4}[=:]\s{0,4}(?:\\?[\"'])?"
_CHAR = r"[^\s\"'\\,;&)}\]]"
_STEM = rf"(?i:pass|pwd|secret|credential|authorization|(?:{_OF_KEYS})[_.-]?(?:key|token))"
_SAID = (
    rf"{_STEM}[A-Za-z0-9_.-]*(?:{_IS}|\s){_CHAR}|(?i:token|auth|key|pat|bearer)(?:{_IS}|\s){_CHAR}"
)
_HINT = re.sub(r"\{0,[0-9]+\}", "*", "|".join([_ISSUED, _SCHEME + _LOGIN, _SAID]))
_HINT = re.sub(r"\{[0-9]+,?\}", "+", _HINT)
"""What Arrow's RE2 finds fast among all values; Python looks closer, and only where this hits.
Without the exact counts, which take RE2 four times as long to compile, and it does so for each key.
"""
_RANDOM_SHAPE = rf"^[A-Za-z0-9+/=_.~:-]{{{RANDOM_CHARS},}}$"

_plain = re.compile(_PLAIN)
_login = re.compile(rf"({_SCHEME}){_LOGIN}(?!sha256:)", re.ASCII)  # docker://name:tag@sha256:...
_said = re.compile(  # looks ahead, so that `--env password=...` is seen twice
    r"(?:(?<![A-Za-z0-9_])(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,80})" + _IS + "|"
    r"--(?P<option>[A-Za-z][A-Za-z0-9_.-]{0,80})\s{1,4}|(?P<bearer>(?i:bearer)\s{1,4}))"
    rf"(?=(?P<value>{_CHAR}{{1,500}}))",
    re.ASCII,
)
_placeholder = re.compile(r"[$<{%]|os\.|(?:str|string)$")
_random_shape = re.compile(_RANDOM_SHAPE)
_alternating = re.compile(r"[A-Za-z][0-9]+[A-Za-z]|[0-9][A-Za-z]+[0-9]")
_path_start = re.compile(r"[/.~]|" + _SCHEME)
_file_end = re.compile(r"\.[A-Za-z0-9]{1,8}$")
_aws_secret = re.compile(r"[A-Za-z0-9/+]{40}")


def is_secret_name(name: str) -> bool:
    """Whether what goes under this name is a secret, whatever it looks like.

    ```python
    is_secret_name("db.password"), is_secret_name("awsSecretAccessKey")  # True, True
    is_secret_name("max_tokens"), is_secret_name("token"), is_secret_name("secret_layer")  # False
    ```
    """
    words = _words(name)
    if not words or _ABOUT.fullmatch(words[-1]):
        return False
    pairs = (first + second for first, second in pairwise(words))
    return any(map(_STRONG.fullmatch, (*words, *pairs)))


def is_telling(name: str) -> bool:
    """Whether what goes under this name may be a secret without any sign in itself."""
    return is_secret_name(name) or _is_weak_name(name) or _is_aws_name(name)


def hinted(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """`(n,)`: which texts may have a secret in them, whatever they go under."""
    hits = np.zeros(len(values), dtype=bool)
    long = pc.greater_equal(pc.binary_length(values), SHORTEST_BYTES).fill_null(False)
    hits[np.asarray(long)] = pc.match_substring_regex(values.filter(long), _HINT)
    return hits


def redacted(
    key: str, values: pa.Array | pa.ChunkedArray
) -> tuple[pa.Array | pa.ChunkedArray, int]:
    """The values of one param or tag, with the secrets replaced.

    Args:
        key: Its name.
        values: `(n,)` texts.

    Returns:
        `(n,)`, of the same type; and in how many values something was replaced. Of an URL with a
        login, the login alone is; else the whole value.
    """
    if isinstance(values, pa.ChunkedArray):
        parts = [redacted(key, chunk) for chunk in values.chunks]
        found = sum(n for _, n in parts)
        if not found:
            return values, 0
        return pa.chunked_array([part for part, _ in parts], type=values.type), found
    if is_secret_name(key):
        suspects = pc.invert(pc.match_substring_regex(values, f"^(?:{_PLAIN})$"))
    else:
        suspects = _suspects(key, values)
    suspects = suspects.fill_null(False)
    before = values.filter(suspects)
    if not len(before):
        return values, 0
    after = _without_secrets(key, before)
    n = int(pc.sum(pc.not_equal(before, after)).as_py())
    return pc.replace_with_mask(values, suspects, after), n


def _suspects(key: str, values: pa.Array) -> pa.Array:
    """`(n,)`: which values need a closer look, under a name that isn't enough by itself."""
    hits = pa.array(hinted(values))
    if is_telling(key):
        hits = pc.or_kleene(hits, pc.match_substring_regex(values, _RANDOM_SHAPE))
    return hits


def _without_secrets(key: str, texts: pa.Array) -> pa.Array:
    """The texts, `(n,)`, themselves where they have none."""
    if is_secret_name(key):
        return pa.array([REDACTED] * len(texts), texts.type)
    hidden = [_without_login(key, text) for text in texts.to_pylist()]
    issued = pc.match_substring_regex(pa.array(hidden, texts.type), _ISSUED).to_pylist()
    return pa.array(
        [
            REDACTED if is_issued or any(map(_is_said, _said.finditer(text))) else text
            for text, is_issued in zip(hidden, issued, strict=True)
        ],
        texts.type,
    )


def _without_login(key: str, text: str) -> str:
    if _is_weak_name(key) and _looks_random(text):
        return REDACTED
    if _is_aws_name(key) and _aws_secret.fullmatch(text) and not text.islower():
        return REDACTED
    return _login.sub(rf"\1{REDACTED}@", text)


def _is_said(match: re.Match[str]) -> bool:
    """Whether a text says a secret: `password=...`, `--token ...`, `Bearer ...`."""
    name, value = match["name"] or match["option"] or "token", match["value"]
    if is_secret_name(name):
        return not (_plain.fullmatch(value) or _placeholder.match(value))
    return _is_weak_name(name) and _looks_random(value)


def _words(name: str) -> list[str]:
    """`hfToken2` and `hf-token` are hf, token."""
    return [word.lower() for word in _WORD.findall(name)]


def _is_weak_name(name: str) -> bool:
    return any(map(_WEAK.fullmatch, _words(name)[-1:]))


def _is_aws_name(name: str) -> bool:
    return "aws" in _words(name)


def _looks_random(text: str) -> bool:
    """Whether letters and digits alternate in it as in no number, path, word or identifier."""
    if not _random_shape.match(text) or _path_start.match(text):
        return False
    if "/" in text and _file_end.search(text):
        return False
    parts = re.split(r"[-_./:=+~]", text)
    return any(len(part) >= PART_CHARS and _alternating.search(part) for part in parts)
