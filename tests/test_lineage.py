"""The lineage of runs, through the command, on a store where the whole loop has run once.

What it says is checked by MLflow's own client, which reads the same tags, params and artifacts.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import fill
from mlflow import MlflowClient

from mlflow_meta.cli import main
from mlflow_meta.services.lineage import nodes
from mlflow_meta.services.update import update
from mlflow_meta.store import MlflowStore
from mlflow_meta.store import lineage as reading

TRAINER = str(Path(__file__).with_name("trainer.py"))
MODEL = "mlflow-meta-val_loss"
GONE = "0" * 32


@dataclass(frozen=True)
class Loop:
    """The ids of what a loop has left in its store."""

    uri: str
    client: MlflowClient
    harvests: list[str]
    training: str
    updated: str
    first: list[str]  # suggested by version 1; the first two are trained
    second: list[str]  # by version 2, in a batch with a run of its own
    explored: list[str]
    batch: str


def run(uri: str, *args: str) -> Result:
    result = CliRunner().invoke(main, args, env={"MLFLOW_TRACKING_URI": uri})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def data(uri: str, command: str, *args: str) -> dict[str, Any]:
    result = run(uri, command, "--json", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def loop(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    uri = f"sqlite:///{shutil.copy(empty_database, folder / 'mlflow.db')}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    location = (folder / "artifacts" / "mlflow-meta").as_uri()
    client.create_experiment("mlflow-meta", artifact_location=location)
    fill(client, folder, n=16)
    harvests = [data(uri, "harvest")["run_id"]]
    training = data(uri, "train", "--metric", "val_loss", "--kind", "linear")["run_id"]
    asked = ["suggest", "-e", "sweep-a", "--seed", "0", "-n"]
    first = [s["run_id"] for s in data(uri, *asked, "3")["suggestions"]]
    data(uri, "work", "-e", "sweep-a", "--max-runs", "2", "--", sys.executable, TRAINER)
    harvests.append(data(uri, "harvest")["run_id"])
    updated = update(MlflowStore(uri), "sweep-a", promote=True).run_id
    second = [s["run_id"] for s in data(uri, *asked, "2")["suggestions"]]
    batch = client.get_run(second[0]).data.tags["mlflow_meta.suggest_run"]
    options = ["--explore", "--metric", "val_loss"]
    explored = [s["run_id"] for s in data(uri, *asked, "1", *options)["suggestions"]]
    yield Loop(
        uri=uri,
        client=client,
        harvests=harvests,
        training=training,
        updated=updated,
        first=first,
        second=second,
        explored=explored,
        batch=batch,
    )


def ids(tree: list[dict[str, Any]]) -> list[Any]:
    """The ids of some nodes, with those below."""
    return [(n["id"], ids(n["children"])) if n["children"] else n["id"] for n in tree]


def flat(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some nodes, and all below."""
    return [node for top in tree for node in (top, *flat(top["children"]))]


def sources(loop: Loop, harvest: str) -> pd.DataFrame:
    """What a harvest has, read from its artifact."""
    path = loop.client.download_artifacts(harvest, "meta_dataset.parquet")
    runs = pd.read_parquet(io.BytesIO(Path(path).read_bytes()))
    return runs[runs["status"] == "FINISHED"]


def test_a_suggested_run_leads_back_to_the_runs_that_taught_the_model(loop: Loop) -> None:
    found = data(loop.uri, "lineage", loop.first[0])
    tags = loop.client.get_run(loop.first[0]).data.tags
    version = loop.client.get_model_version(MODEL, "1")
    params = loop.client.get_run(version.run_id).data.params
    chain = (
        tags["mlflow_meta.suggest_run"],
        [(f"{MODEL}/1", [(version.run_id, [params["harvest_run_id"]])])],
    )
    assert version.run_id == loop.training
    assert params["harvest_run_id"] == loop.harvests[0]
    assert ids(found["up"]) == [chain, tags["mlflow_meta.nearest_run"]]
    batch, near = found["up"]
    assert (batch["role"], near["role"]) == ("batch", "nearest run")
    assert batch["said"] == "3 runs of sweep-a: 2 FINISHED, 1 SCHEDULED"
    assert near["value"] == loop.client.get_run(near["id"]).data.metrics["val_loss"]
    harvest = flat(found["up"])[3]
    counts = sources(loop, loop.harvests[0])["experiment"].value_counts()
    assert dict(counts) == {"sweep-a": 16, "sweep-b": 16}
    assert harvest["said"] == "32 runs of sweep-a (16), sweep-b (16)"
    assert found["remarks"] == []


def test_a_run_says_what_became_of_it_and_of_what_was_predicted(loop: Loop) -> None:
    done = data(loop.uri, "lineage", loop.first[0])["run"]
    saved = loop.client.get_run(loop.first[0])
    assert (done["role"], done["status"], done["metric"]) == (
        "suggested run",
        saved.info.status,
        "val_loss",
    )
    assert done["value"] == saved.data.metrics["val_loss"]
    predicted = saved.data.metrics["predicted_val_loss"]
    assert done["said"] == f"in sweep-a, predicted {predicted:.5g}"
    waiting = data(loop.uri, "lineage", loop.first[2])
    assert (waiting["run"]["status"], waiting["run"]["value"]) == ("SCHEDULED", None)
    assert (waiting["down"], waiting["remarks"]) == ([], [])


def test_a_source_run_leads_to_all_that_was_learned_from_it(loop: Loop) -> None:
    (experiment,) = loop.client.search_experiments(filter_string="name = 'sweep-b'")
    (source, *_) = loop.client.search_runs([experiment.experiment_id], "metrics.val_loss > 0")
    found = data(loop.uri, "lineage", source.info.run_id)
    assert (found["run"]["role"], found["up"]) == ("run", [])
    assert [node["id"] for node in found["down"]] == loop.harvests[::-1]
    assert all(source.info.run_id in set(sources(loop, h)["run_id"]) for h in loop.harvests)
    newest, oldest = found["down"]
    second = (f"{MODEL}/2", [(loop.batch, loop.second)])
    assert ids(newest["children"]) == [(loop.updated, [second]), (tag(loop, 0), loop.explored)]
    assert newest["children"][1]["said"] == "1 run of sweep-a: 1 SCHEDULED; without a model"
    first = (f"{MODEL}/1", [(tag(loop, 1), loop.first), loop.updated])
    assert ids(oldest["children"]) == [(loop.training, [first])]
    again = [node for node in flat(found["down"]) if node["said"] == "see above"]
    assert [node["id"] for node in again] == [loop.updated]
    suggested = [node for node in flat(found["down"]) if node["role"] == "suggested run"]
    for node in suggested:
        saved = loop.client.get_run(node["id"])
        assert node["status"] == saved.info.status
        assert node["value"] == saved.data.metrics.get("val_loss")
    assert sorted(node["id"] for node in suggested) == sorted(
        [*loop.first, *loop.second, *loop.explored]
    )


def tag(loop: Loop, which: int) -> str:
    """The batch of the explored run, or of the first suggestions."""
    run_id = (loop.explored, loop.first)[which][0]
    return str(loop.client.get_run(run_id).data.tags["mlflow_meta.suggest_run"])


def test_a_suggested_run_that_was_trained_teaches_the_next_model(loop: Loop) -> None:
    found = data(loop.uri, "lineage", loop.first[1])
    assert [node["id"] for node in found["down"]] == [loop.harvests[1]]
    assert loop.first[1] in set(sources(loop, loop.harvests[1])["run_id"])
    assert loop.updated in [node["id"] for node in flat(found["down"])]


def test_an_update_stands_between_two_versions(loop: Loop) -> None:
    found = data(loop.uri, "lineage", loop.updated)
    params = loop.client.get_run(loop.updated).data.params
    assert (params["updated_from"], params["harvest_run_id"]) == ("1", loop.harvests[1])
    before = (f"{MODEL}/1", [(loop.training, [loop.harvests[0]])])
    assert ids(found["up"]) == [loop.harvests[1], before]
    assert ids(found["down"]) == [(f"{MODEL}/2", [(loop.batch, loop.second)])]
    assert found["down"][0]["said"] == "challenger, champion"


def test_a_batch_with_a_run_of_its_own_goes_both_ways(loop: Loop) -> None:
    found = data(loop.uri, "lineage", loop.batch)
    assert (found["run"]["role"], found["run"]["name"]) == ("batch", "suggest")
    assert found["run"]["said"] == "2 runs of sweep-a: 2 SCHEDULED"
    assert [node["id"] for node in found["up"]] == [f"{MODEL}/2"]
    assert ids(found["down"]) == loop.second
    assert data(loop.uri, "lineage", loop.second[0])["up"][0]["id"] == loop.batch


def test_a_harvest_a_training_and_a_kind_of_model_are_followed_too(loop: Loop) -> None:
    harvest = data(loop.uri, "lineage", loop.harvests[0])
    assert harvest["run"]["role"] == "harvest"
    assert (harvest["up"], [n["id"] for n in harvest["down"]]) == ([], [loop.training])
    training = data(loop.uri, "lineage", loop.training)
    assert ids(training["up"]) == [loop.harvests[0]]
    assert [node["id"] for node in training["down"]] == [f"{MODEL}/1"]
    own = loop.client.get_experiment_by_name("mlflow-meta").experiment_id
    nested = f"tags.`mlflow.parentRunId` = '{loop.training}'"
    (candidate, *_) = loop.client.search_runs([own], nested)
    above = data(loop.uri, "lineage", candidate.info.run_id)
    assert above["run"]["role"] == "candidate"
    assert ids(above["up"]) == [(loop.training, [loop.harvests[0]])]


def test_what_was_suggested_without_a_model_rests_on_a_harvest(loop: Loop) -> None:
    found = data(loop.uri, "lineage", loop.explored[0])
    assert ids(found["up"]) == [(tag(loop, 0), [loop.harvests[1]])]


def test_a_model_that_was_updated_in_memory_rests_on_two_harvests(loop: Loop) -> None:
    own = loop.client.get_run(loop.first[2]).info.experiment_id
    tags = {
        "mlflow_meta.rank": "1",
        "mlflow_meta.suggest_run": "in-memory",
        "mlflow_meta.model_version": f"{MODEL}/1",
        "mlflow_meta.harvest_run": loop.harvests[1],
    }
    made = loop.client.create_run(own, tags=tags).info.run_id
    try:
        (batch,) = data(loop.uri, "lineage", made)["up"]
        version, harvest = batch["children"]
        assert ids([version]) == [(f"{MODEL}/1", [(loop.training, [loop.harvests[0]])])]
        assert harvest["id"] == loop.harvests[1]
        assert harvest["said"].endswith("; its newer runs have updated the model in memory")
        below = data(loop.uri, "lineage", loop.harvests[1])["down"]
        assert ("in-memory", [made]) in ids(below)
        (node,) = [node for node in below if node["id"] == "in-memory"]
        assert node["said"] == "1 run of sweep-a: 1 RUNNING; it has updated the model in memory"
    finally:
        loop.client.delete_run(made)


def test_attempts_are_followed_both_ways_also_in_a_circle(loop: Loop) -> None:
    own = loop.client.get_run(loop.first[2]).info.experiment_id
    made: list[str] = []
    for attempt in range(3):
        tags = {"mlflow_meta.rank": "1", "mlflow_meta.attempt": str(attempt + 1)}
        tags |= {"mlflow_meta.previous_run": made[-1]} if made else {}
        made.append(loop.client.create_run(own, tags=tags).info.run_id)
    try:
        last = data(loop.uri, "lineage", made[2])
        earlier = [n["id"] for n in last["up"] if n["role"] == "earlier attempt"]
        assert earlier == [made[1], made[0]]
        assert last["run"]["said"] == "in sweep-a, attempt 3"
        first = data(loop.uri, "lineage", made[0])
        later = [n["id"] for n in first["down"] if n["role"] == "later attempt"]
        assert later == [made[1], made[2]]
        loop.client.set_tag(made[0], "mlflow_meta.previous_run", made[2])
        around = data(loop.uri, "lineage", made[0])["up"]
        assert [n["id"] for n in around if n["role"] == "earlier attempt"] == made[:0:-1]
    finally:
        for run_id in made:
            loop.client.delete_run(run_id)


def test_what_is_gone_is_told_and_the_rest_is_shown(loop: Loop) -> None:
    own = loop.client.get_run(loop.first[2]).info.experiment_id
    tags = {
        "mlflow_meta.rank": "1",
        "mlflow_meta.metric": "val_loss",
        "mlflow_meta.aliases": "{broken",
        "mlflow_meta.model_version": f"{MODEL}/99",
        "mlflow_meta.harvest_run": GONE,
        "mlflow_meta.nearest_run": "no such thing'",
    }
    made = loop.client.create_run(own, tags=tags).info.run_id
    try:
        found = data(loop.uri, "lineage", made)
        assert ids(found["up"]) == [(made, [f"{MODEL}/99"])]
        assert flat(found["up"])[1]["said"] == "is gone"
        assert found["remarks"] == [
            f"The model version {MODEL}/99 is gone.",
            f"The run {GONE} is gone.",
            "The run no such thing' is gone.",
        ]
    finally:
        loop.client.delete_run(made)
    assert data(loop.uri, "lineage", made)["run"]["status"] == "DELETED"


def test_a_run_that_nothing_was_learned_from_says_why(loop: Loop) -> None:
    (experiment,) = loop.client.search_experiments(filter_string="name = 'sweep-a'")
    failed = loop.client.search_runs([experiment.experiment_id], "attributes.status = 'FAILED'")
    found = data(loop.uri, "lineage", failed[0].info.run_id)
    assert found["down"] == []
    (remark,) = found["remarks"]
    assert f"the newest harvest, {loop.harvests[1]}, left it out: " in remark
    fresh = loop.client.create_run(experiment.experiment_id).info.run_id
    loop.client.set_terminated(fresh)
    try:
        (remark,) = data(loop.uri, "lineage", fresh)["remarks"]
        assert remark.endswith(f"the newest harvest, {loop.harvests[1]}, has not read it.")
    finally:
        loop.client.delete_run(fresh)


def test_the_tree_shows_whole_ids_on_unbroken_lines(loop: Loop) -> None:
    result = run(loop.uri, "lineage", loop.first[0])
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    value = loop.client.get_run(loop.first[0]).data.metrics["val_loss"]
    assert lines[0].startswith(f'suggested run {loop.first[0]}  "suggested 1: ')
    assert f"FINISHED, val_loss {value:.5g}, in sweep-a, predicted " in lines[0]
    assert [line.strip(" │├└─") for line in lines if "comes from" in line or "has led to" in line]
    shown = data(loop.uri, "lineage", loop.first[0])
    for node in flat([*shown["up"], *shown["down"]]):
        assert sum(f"{node['role']} {node['id']}" in line for line in lines) == 1
    assert "has led to nothing yet" in run(loop.uri, "lineage", loop.first[2]).stdout


def test_an_unknown_run_is_one_line(loop: Loop) -> None:
    for run_id in (GONE, "../x", "a'b"):
        result = run(loop.uri, "lineage", run_id)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"Error: There is no run {run_id!r} on sqlite:///")


def test_no_more_than_the_newest_are_looked_at_and_that_is_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_HARVESTS", 1)
    monkeypatch.setattr(reading, "MAX_SUGGESTED", 2)
    (experiment,) = loop.client.search_experiments(filter_string="name = 'sweep-b'")
    (source, *_) = loop.client.search_runs([experiment.experiment_id], "metrics.val_loss > 0")
    found = data(loop.uri, "lineage", source.info.run_id)
    assert [node["id"] for node in found["down"]] == [loop.harvests[1]]
    assert found["remarks"] == [
        "Only the newest 1 harvests were looked at.",
        "Only the newest 2 batches were looked at.",
        "Only the newest 2 suggested runs were looked at.",
    ]
    old = data(loop.uri, "lineage", loop.first[0])  # beyond what was looked at
    assert flat(old["up"])[3]["id"] == loop.harvests[0]


def test_updates_are_followed_a_few_steps_only(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow_meta.services.lineage.up.MAX_STEPS", 0)
    monkeypatch.setattr("mlflow_meta.services.lineage.down.MAX_STEPS", 0)
    assert nodes.MAX_STEPS == 5
    on = f"go on with `mlflow-meta lineage {loop.updated}`"
    above = data(loop.uri, "lineage", loop.second[0])["up"]
    assert [n["said"] for n in flat(above) if n["id"] == loop.updated] == [on]
    below = data(loop.uri, "lineage", loop.training)["down"]
    assert [n["said"] for n in flat(below) if n["id"] == loop.updated] == [on]


def test_before_the_first_harvest_a_run_has_led_to_nothing(
    sqlite_uri: str, client: MlflowClient
) -> None:
    experiment = client.create_experiment("alone")
    made = client.create_run(experiment).info.run_id
    client.set_terminated(made)
    found = data(sqlite_uri, "lineage", made)
    assert (found["up"], found["down"]) == ([], [])
    assert found["remarks"] == [
        f"No harvest has {made} among its trials; nothing was harvested yet."
    ]
    assert [e.name for e in client.search_experiments()] == ["alone", "Default"]  # nothing is made
