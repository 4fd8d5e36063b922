"""What servers accept and no harvest may stumble over: some 300 runs, each hostile in one way.

They are logged by bare REST calls, since MLflow's client would refuse most of it by itself. Beside
what is hostile each run has a good param and a good metric and is FINISHED, unless it is about
these: so what is expected of nearly all is that they become trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

T = 1_700_000_000_000  # ms; when runs end
MINUTE_MS = 60_000
TIMEOUT_S = 60.0
NAME_CHARS = 70
MAX_PARAM_CHARS = 6000  # servers cut what is longer, so this long may have been cut
SELF = "the run's own id"
TRIAL, ABSENT = "trial", "absent"
NAN, INF = "NaN", "Infinity"  # as clients send them; servers store the latter as GREATEST
BARE_NAN, BARE_INF = float("nan"), float("inf")  # servers store 0.0 at the time 0 instead
GREATEST = 1.7976931348623157e308
Points = list[tuple[Any, Any, Any, Any]]  # key, value, timestamp, step


@dataclass(frozen=True, slots=True)
class Case:
    """A run that is hostile in one way.

    Attributes:
        name: What way.
        run_id: None if the server refused to create it.
        expected: "trial"; "absent" if it is none of the runs that are listed; a word of the reason
            why it is no trial; None where that is not certain.
    """

    name: str
    run_id: str | None
    expected: str | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to make a case.

    Attributes:
        name: Of the case.
        calls: What is posted to it once it is there: endpoint, body without the run's id.
        expected: Of the case.
        create: Fields of `runs/create` instead of the good ones.
        end: Fields of `runs/update`; None: it goes on.
        metrics: What is logged beside the calls; a good one if not told.
    """

    name: str
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    expected: str | None = TRIAL
    create: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = field(default_factory=lambda: {"status": "FINISHED"})
    metrics: Points = field(default_factory=lambda: [("loss", 0.5, T, 0)])


# fmt: off
PARAM_VALUES: list[Any] = [
    # Into a page, a terminal, a log, a table
    "<script>alert('lr')</script>", "\"><img src=x onerror=alert('lr')>",
    "<svg/onload=alert(1)>", "</script><script>alert(1)//", "[loss](javascript:alert(1))",
    "%s%n%(lr)s", "[bold red]x[/] [/]",
    "{{ ''.__class__.__mro__ }}{% for x in y %}{{ x }}{% endfor %}",
    "${jndi:ldap://127.0.0.1/lr}", "{0.__class__.__init__.__globals__}", "=HYPERLINK(A1)",
    "+2+3", "-2+3", "@SUM(2+3)", "\t=2+3", "\r=2+3", 'a;"b",c\n=2+3',
    "\x1b[2J\x1b[31mred\x1b]0;title\x07", "ok\r\n2026-01-01 ERROR forged",
    # Into a command, a query, a path
    "1; touch /tmp/lr", "$(touch /tmp/lr)", "`touch /tmp/lr`", "1\ntouch /tmp/lr",
    "'; touch lr; '", "1 && touch /tmp/lr", "--config=/etc/hostname", "-rf",
    "1 LD_PRELOAD=/tmp/lr.so", "1,2,3", "choice(1,2)", "${oc.env:HOME}", "@/etc/hostname",
    "../../../../etc/hostname", "/etc/hostname", "file:///etc/hostname",
    "http://127.0.0.1:9/latest/", "x' OR 1=1 --", "it's \"both\"", "a`b",
    "x' AND params.lr = 'y", 'x" AND params.lr = "y', "100%_", "'; DROP TABLE params; --",
    # Characters
    "a\x00b", "a\ud83d", "\ude00b", "".join(map(chr, range(1, 32))), "\x7f\x80\x9f",
    "\ufffe\uffff", "a\u2028b\u2029c\x85d", "\u202egnp.lr", "a\u200bb\ufeff", "👨‍👩‍👧‍👦🏳️‍🌈",
    "caf\u00e9", "cafe\u0301", "a" + "\u0300" * 300, "𠜎" * 10, "\u0430dam", "", "   ", "\n",
    " adam", "adam ",
    # Numbers, or not
    "None", "null", "nan", "NaN", "<NA>", "inf", "-Infinity", "1e400", "1e308", "-1e308",
    "5e-324", "1e-400", "-0.0", "0x10", "1_000", "1,5", "1,000.5", "\uff11\uff12", "٣", "²",
    "True", "true", "yes", "007", "+5", "5%", "1/3", "1E+05", "1d5", ".5", "5.", "1.2.3",
    "2026-01-01", "12:30:45", str(2**63), str(2**53 + 1), "9" * 5000,
    "0.1000000000000000055511151231257827", "1" + "0" * 400, 3, 0.5, 10**30, True, None, [1, 2],
    {"a": 1},
    # Texts of programs
    "[1, 2, 3]", "{'a': 1}", '{"a": {"b": [1, null, NaN]}}', "[" * 3000, '{"a": 1, "a": 2}',
    "!!python/object/apply:os.system ['touch /tmp/lr']", "&a [*a, *a]", "array([1., 2.])",
    "gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAJpZJSFlFKULg==",
    "<function f at 0x7f0000000000>", "lambda: 0", "a" * 3000 + "!",
    # Secrets: nobody's, and in two parts, so that no scanner of repositories takes them for one
    "AKIA" + "IOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY",
    "ghp_" + "a" * 36, "hf_" + "b" * 34, "sk-" + "c" * 48,
    "postgresql://user:" + "hunter2@db:5432/x",
    "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    # Long ones
    "y" * 6000, "y" * 6001, "y" * 500_000, "😀" * 6000, "😀" * 6001, "1" + "0" * 7000,
    "0." + "1" * 5998,
]
PARAM_NAMES: list[list[Any]] = [  # each list is of one run
    ["WD", "wd", "Wd"], [" wd", "wd ", "wd"], ["学习率", "скорость", "معدل", "λ", "ﬁ"], ["😀"],
    ["wr", "w\u0433"], ["\u00e9", "e\u0301"], ["a b/c.d:e-f_g"], ["a'b"], ['a"b'], ["a`b"],
    ["a;b"], ["<b>"], ["a=b"], ["$HOME"], ["a\nb"], ["wd\n"], ["a\x00b"], ["a\ud800b"],
    ["n" * 250], ["n" * 251], ["../x"], ["."], [".."], ["a//b"], ["/etc"], ["a/"], [""], [" "],
    ["a\u00a0b"], ["\u202ewd"], ["a,b"], ["a\tb"], ["a[0]"], ["a{b}"], ["a%b"], ["a\\b"],
    ["--wd", "-x"], ["__class__", "__proto__", "constructor", "hasOwnProperty"],
    ["class", "lambda", "None", "nan"],
    ["run_id", "status", "params.lr", "metrics.loss", "tags.x", "index", "level_0", "task"],
    ["0", "1", "-1", "²", "٣"], ["loss"], ["lr"], ["mlflow.x", "mlflow_meta.rank"], [3], [None],
]
METRICS: list[Points] = [
    *([("m", value, T, 0)] for value in (
        NAN, INF, "-Infinity", BARE_NAN, BARE_INF, -BARE_INF, GREATEST, 5e-324, -0.0, 2**53 + 1,
        10**400, "1e400", "1.5", "nan", "abc", "", True, None, [1.0])),
    *([("m", 1.0, T, step)] for step in (-5, 2**63 - 1, 2**63, 1.5, "1", None)),
    *([("m", 1.0, ms, 0)] for ms in (
        0, -1, 2**62, 2**63, T // 1000, T * 10**6, T + 0.5, str(T), None)),
    *([(key, 1.0, T, 0)] for key in (
        "точность", "val loss/épöch", "system/cpu_percentage", "run_id", "params.lr", "n" * 251,
        "a\x00b", "\ud800", "", None, 3)),
    [("Loss", 1.0, T, 0), ("LOSS", 2.0, T, 0)], [("m", 1.0, T, 0), ("m", 2.0, T, 0)],
    [("m", 1.0, T, 0)] * 2, [("m", 1e308, T, 0), ("m", 1e308, T, 1)],
    [("m", NAN, T, 0), ("m", 1.0, T + 1, 1)], [("m", 1.0, T, 0), ("m", NAN, T + 1, 1)],
    [("m", 1.0, T, 5), ("m", 2.0, T + 1, 1)], [("m", 1.0, T, 0), ("m", 2.0, T - 10**9, 1)],
    [("m", (0.5, INF)[i % 2], T, i) for i in range(10)],
    [(f"m{i}", float(i), T, 0) for i in range(1000)], [(f"m{i}", 1.0, T, 0) for i in range(1001)],
]
LONE_METRICS: list[tuple[Points, str | None]] = [
    ([], "metric"), *(([("loss", value, T, 0)], "metric") for value in (
        NAN, INF, "-Infinity", GREATEST, -GREATEST)),
    *(([("loss", value, T, 0)], "timestamp") for value in (BARE_NAN, BARE_INF, "abc", [1.0])),
    ([("loss", 0.0, 0, 0)], "timestamp"), ([("loss", 0.0, T, 0)], TRIAL),
    ([("loss", 0.5, 0, 0)], None), ([("loss", "0.5", T, 0)], TRIAL),
    ([("loss", None, T, 0)], "metric"),
    ([("loss", 0.5, T, 0), ("loss", NAN, T + 1, 1)], None),
    ([("loss", NAN, T, 0), ("loss", 0.5, T + 1, 1)], None),
    ([("loss", 0.5, T, 0), ("loss", INF, T + 1, 1)], None), ([("system/cpu", 9.0, T, 0)], None),
]
TAGS: list[tuple[Any, Any]] = [
    ("mlflow.note.content", "# hi\n<script>alert(1)</script>"), ("mlflow.runName", ""),
    ("mlflow.runName", "<script>alert(1)</script>"), ("t", "z" * 8000), ("t", "z" * 8001),
    ("t", "z" * 500_000), ("k" * 250, "1"), ("k" * 251, "1"), ("a'b", "1"),
    ("mlflow.user", "root"), ("mlflow.parentRunId", SELF), ("mlflow.parentRunId", "f" * 32),
    ("mlflow.parentRunId", ""), ("mlflow.parentRunId", "' OR 1=1"),
    ("mlflow.source.git.commit", "$(touch /tmp/lr)"),
    ("mlflow.source.git.repoURL", "https://u:p4ss@" + "host/x"),
    ("mlflow.source.name", "sh -c 'x'"), ("mlflow.log-model.history", "{not json"),
    ("mlflow.log-model.history", '{"flavors": 3}'),
    ("mlflow.log-model.history", '[{"artifact_path": "../../x", "flavors": {"pyfunc": {}}}]'),
    ("aws_secret_access_key", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"), ("t", "a\x00b"),
    ("db.password", "hunter2"), ("mlflow_meta.rank", "deadbeef"),
    ("mlflow_meta.claim", "attacker"), ("mlflow_meta.started_ms", "9" * 30),
    ("mlflow_meta.started_ms", "²٣"), ("t", "\ud800"), ("t", ""),
    ("mlflow_meta.hardware.gpu", "<b>\x1b[31m"), ("mlflow_meta.hardware.gpus", "²"),
    ("t", None), ("t", 3), ("", "1"), ("mlflow.databricks.cluster.info", "{not json"),
    ("gpu_count", "many"),
]
CREATED: list[tuple[dict[str, Any], str | None]] = [
    *(({"tags": [{"key": key, "value": value}]}, TRIAL) for key, value in (
        ("t", "q" * 9000), ("t", "q" * 500_000), ("a'b\"`;", "1"), ("k" * 300, "1"), ("t", "\0"))),
    ({"tags": [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]}, TRIAL),
    ({"tags": [{"key": f"k{i}", "value": "1"} for i in range(500)]}, TRIAL),
    *(({"start_time": ms}, None) for ms in (
        0, -(10**12), 4_102_444_800_000, 2**63 - 1, 2**63, -(2**63), T * 10**6, "soon", 1.5, None)),
    ({"start_time": str(T)}, TRIAL), ({"colour": "red"}, TRIAL),
    *(({"run_name": name}, TRIAL) for name in (
        "r" * 500_000, "r" * 251, "a\x00b", "\ud800", "<b>", 3)),
    *(({"user_id": user}, TRIAL) for user in ("<script>alert(1)</script>", "u" * 300)),
    ({"run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]}, TRIAL),
]
ENDS: list[tuple[dict[str, Any] | None, str | None]] = [
    (None, "running"), ({"status": "FAILED"}, "failed"), ({"status": "KILLED"}, "killed"),
    ({"status": "SCHEDULED", "end_time": None}, "scheduled"),
    ({"status": "RUNNING"}, "running"), ({"status": "BOGUS"}, "running"),
    ({"status": 99}, "running"), ({"status": 3}, TRIAL), ({"end_time": None}, None),
    ({"end_time": 1}, None), ({"end_time": -1}, None), ({"end_time": 2**63 - 1}, None),
    ({"end_time": "soon"}, "running"), ({"end_time": 2**63}, None),
]
PARAM_BATCHES: list[list[dict[str, Any]]] = [
    [{"key": f"p{i}", "value": "1"} for i in range(100)],
    [{"key": f"p{i}", "value": "1"} for i in range(101)],
    [{"key": "p", "value": "1"}, {"key": "p", "value": "2"}], [{"key": "p", "value": "1"}] * 2,
    [{"key": "ok1", "value": "1"}, {"key": "bad;", "value": "1"}, {"key": "ok2", "value": "1"}],
    [{"key": f"p{i}", "value": "z" * 12_000} for i in range(95)], [{"key": "p"}],
    [{"value": "1"}], [{}], [{"key": f"p{i}", "value": "z" * 6000} for i in range(100)],
    [{"key": "p", "value": "a", "b": 1}],
]
DATASETS: list[dict[str, Any]] = [  # fields instead of good ones
    *({"schema": text} for text in (
        "{not json", "[" * 3000, '{"mlflow_colspec": 3}', '{"mlflow_colspec": [3]}', "x" * 70_000)),
    *({"profile": text} for text in (
        "{not json", '{"num_rows": "many"}', '{"num_rows": -1e400}', '[]', "null", None)),
    *({"name": text} for text in ("a\x00b", "n" * 501, "", "<b>\x1b[31m", None)),
    *({"digest": text} for text in ("../x", "d" * 37, "", None)),
    {"source": "https://u:p4ss@" + "host/x"}, {"source_type": None},
]
FAMILIES: dict[str, list[tuple[int | None, str | None]]] = {  # position of the parent, expected
    "with two children": [(None, "parent"), (0, TRIAL), (0, TRIAL)],
    "with a grandchild": [(None, "parent"), (0, "parent"), (1, TRIAL)],
    "of each other's parents": [(1, None), (0, None)],
    "with a child that failed": [(None, None), (0, "failed")],
    "with a child that is deleted": [(None, None), (0, ABSENT)],
    "of one that is deleted": [(None, ABSENT)],
    "with a parent that failed": [(None, "failed"), (0, TRIAL)],
}
EXPERIMENTS = [
    "../../etc", "a'b\"c`", "<script>alert(1)</script>", "e" * 400, "e" * 501, "e\x00x",
    "\ud800", "   ", "\n", "😀 学习", "=2+3", "\x1b[31m", "' OR 1=1", "%_",
]
# fmt: on


def fill(server_url: str, experiment: str) -> list[Case]:
    """Make all cases in an experiment of that name, and some in others whose names begin with it.

    Raises:
        ValueError: If there is such an experiment already.
    """
    with requests.Session() as session:
        session.trust_env = False
        server = _Server(session, f"{server_url}/api/2.0/mlflow")
        created = server.post("experiments/create", {"name": experiment})
        if created is None:
            raise ValueError(
                f"The experiment {experiment!r} can't be created: is it there already?"
            )
        main = created["experiment_id"]
        plans = [*_logged(), *_made()]
        cases = [Case(plan.name, server.run(main, plan), plan.expected) for plan in plans]
        cases += [case for name in FAMILIES for case in _family(server, main, name)]
        cases += _copies(server, main)
        cases += [_in_experiment(server, f"{experiment} {name}") for name in EXPERIMENTS]
    return [
        Case(f"{i:03d} {case.name}", case.run_id, case.expected if case.run_id else None)
        for i, case in enumerate(cases)
    ]


def _logged() -> Iterator[_Plan]:
    """What is logged to a run."""
    for value in PARAM_VALUES:
        expected = TRIAL if len(str(value)) < MAX_PARAM_CHARS else None
        yield _Plan(_name("param", value), (_param("hostile", value),), expected)
    for keys in PARAM_NAMES:
        yield _Plan(_name("param named", keys), tuple(_param(key, "1") for key in keys))
    for params in PARAM_BATCHES:
        expected = TRIAL if len(str(params[0])) < MAX_PARAM_CHARS else None
        yield _Plan(_name("params", params), (("runs/log-batch", {"params": params}),), expected)
    for points in METRICS:
        yield _Plan(_name("metric", points), (_batch(points),))
    for points, lone in LONE_METRICS:
        yield _Plan(_name("only metric", points), (_batch(points),), lone, metrics=[])
    for key, value in TAGS:
        yield _Plan(_name("tag", (key, value)), (("runs/set-tag", {"key": key, "value": value}),))
    for i, fields in enumerate(DATASETS):  # each with a digest: the first of a digest's is kept
        good = {
            "name": "d",
            "digest": f"{i}",
            "source_type": "http",
            "source": "{}",
            "schema": "{}",
        }
        body = {"datasets": [{"tags": [], "dataset": good | fields}]}
        yield _Plan(_name("data set", fields), (("runs/log-inputs", body),))
    mixed = {**_batch([("m", 1.0, T, 0)])[1], "tags": [{"key": "t", "value": "a\x00b"}]}
    yield _Plan("a batch with a good half", (("runs/log-batch", mixed),))


def _made() -> Iterator[_Plan]:
    """How a run begins and ends."""
    for fields, expected in CREATED:
        yield _Plan(_name("created with", fields), expected=expected, create=fields)
    for end, expected in ENDS:
        yield _Plan(_name("ended with", end), expected=expected, end=end)
    yield _Plan("deleted and restored", (("runs/delete", {}), ("runs/restore", {})))


def _family(server: _Server, experiment_id: str, name: str) -> Iterator[Case]:
    ids: list[str | None] = []
    for _, expected in FAMILIES[name]:
        end = {"status": "FAILED" if expected == "failed" else "FINISHED"}
        ids.append(server.run(experiment_id, _Plan("", end=end)))
    for i, (parent, expected) in enumerate(FAMILIES[name]):
        if parent is not None:
            tag = {"key": "mlflow.parentRunId", "value": ids[parent]}
            server.post("runs/set-tag", {"run_id": ids[i], **tag})
        if expected == ABSENT:
            server.post("runs/delete", {"run_id": ids[i]})
        yield Case(f"run {i} of a family {name}", ids[i], expected)


def _copies(server: _Server, experiment_id: str) -> list[Case]:
    """The first of the copies, by their ids, is a trial; what differs from them is one as well."""
    start = {"start_time": T - 1}
    tagged = _Plan("", create=start | {"tags": [{"key": "copy", "value": "yes"}]})
    ids = [server.run(experiment_id, plan) for plan in (_Plan("", create=start), tagged, tagged)]
    first, *others = sorted(str(run_id) for run_id in ids)
    near = [
        _Plan("a copy but for its end", create=start, end={"end_time": T + 1}),
        _Plan("a copy but for a metric", create=start, metrics=[("loss", 0.25, T, 0)]),
        _Plan("a copy but for a param", (_param("hostile", "1"),), create=start),
    ]
    return [
        Case("the first of copies", first, TRIAL),
        *(Case("a copy", run_id, "duplicate") for run_id in others),
        *(Case(plan.name, server.run(experiment_id, plan), plan.expected) for plan in near),
    ]


def _in_experiment(server: _Server, name: str) -> Case:
    created = server.post("experiments/create", {"name": name})
    run_id = server.run(created["experiment_id"], _Plan("")) if created else None
    return Case(_name("experiment", name), run_id, TRIAL)


class _Server:
    """The REST interface, without any check."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self._session = session
        self._url = url
        self._n_runs = 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if the server refuses, in whatever way."""
        answer = self._session.post(
            f"{self._url}/{path}",
            data=json.dumps(body),  # with NaN, and with half a character as \ud800
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT_S,
        )
        found: dict[str, Any] | None = answer.json() if answer.ok else None
        return found

    def run(self, experiment_id: str, plan: _Plan) -> str | None:
        """Make a run as planned, each with a start of its own; its id, None if it is refused."""
        self._n_runs += 1
        start = {"experiment_id": experiment_id, "start_time": T - self._n_runs * MINUTE_MS}
        created = self.post("runs/create", start | plan.create)
        if created is None:
            return None
        run_id = str(created["run"]["info"]["run_id"])
        _, good = _batch(plan.metrics)
        calls = [
            ("runs/log-batch", good | {"params": [{"key": "lr", "value": "0.1"}]}),
            *plan.calls,
        ]
        if plan.end is not None:
            calls.append(("runs/update", {"status": "FINISHED", "end_time": T} | plan.end))
        for path, body in calls:
            mine = {key: run_id if value == SELF else value for key, value in body.items()}
            self.post(path, {"run_id": run_id, **mine})
        return run_id


def _param(key: Any, value: Any) -> tuple[str, dict[str, Any]]:
    return "runs/log-parameter", {"key": key, "value": value}


def _batch(points: Points) -> tuple[str, dict[str, Any]]:
    names = ("key", "value", "timestamp", "step")
    return "runs/log-batch", {"metrics": [dict(zip(names, p, strict=True)) for p in points]}


def _name(kind: str, what: object) -> str:
    return f"{kind} {ascii(what)[:NAME_CHARS]}"
