"""The commands, through the front door; then a look at the store by MLflow's own client."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import SHARED, add_run, fill, need
from mlflow import MlflowClient
from servers import free_port, mlflow_server

from mlflow_meta import shown
from mlflow_meta.cli import main
from mlflow_meta.cli.learn import KINDS
from mlflow_meta.known import never_logged
from mlflow_meta.models import ZOO
from mlflow_meta.models.baselines import BASELINES
from mlflow_meta.services.suggest import suggest
from mlflow_meta.space import SearchSpace
from mlflow_meta.store import MlflowStore, registry, suggested

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TRAINER = str(Path(__file__).with_name("trainer.py"))


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, args)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*args: str) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def data(command: str, *args: str) -> dict:
    result = done(command, "--json", *args)
    return json.loads(result.stdout)


def quickly_trained(metric: str, *args: str) -> None:
    """A meta-model of one kind, where it is no matter which of them is best."""
    done("train", "--metric", metric, "--kind", "transfer", *args)


def refusal(*args: str, code: int = 1) -> str:
    """The one line that a command says when it fails."""
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def uri(filled_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", filled_uri)
    return filled_uri


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_is_in_the_readme_shows_an_example_and_has_json(name: str) -> None:
    assert f"mlflow-meta {name}" in README
    assert "Example:" in (main.commands[name].help or "")
    assert "--json" in [option for p in main.commands[name].params for option in p.opts]


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlflow_meta.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'mlflow', 'sklearn', 'rich'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        seconds.append(time.perf_counter() - start)
    assert out.stderr.strip() == "set()"
    bare = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import click"], check=True)
    bare = time.perf_counter() - bare
    assert min(seconds) < max(0.3, 2.5 * bare), f"{min(seconds):.2f} s, click alone {bare:.2f} s"


def test_the_loop_by_hand(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    copy = tmp_path / "runs.parquet"
    harvested = data("harvest", "--out", str(copy))
    assert (harvested["n_trials"], harvested["n_quarantined"]) == (48, 6)
    assert copy.stat().st_size > 0

    space_file = tmp_path / "space.yaml"
    done("space", "-e", "sweep-a", "--out", str(space_file))
    document = yaml.safe_load(space_file.read_text())
    assert set(document["parameters"]) == {"model", "lr", "depth", "units"}
    assert document["parameters"]["units"]["when"] == {"model": ["mlp"]}
    assert document["parameters"]["lr"]["log"] is True
    assert document["left_out"]["seed"] == "is a seed"
    assert "always s3://bucket" in document["left_out"]["data"]

    trained = data("train", "--metric", "val_loss")
    assert {c["model"] for c in trained["candidates"]} == {*ZOO, *BASELINES}
    assert trained["candidates"][0]["spearman"] > 0.5

    document["parameters"]["lr"]["low"] = 0.001
    space_file.write_text(yaml.safe_dump(document))
    found = data("suggest", "-e", "sweep-a", "-n", "4", "--space", str(space_file), "--seed", "1")
    assert [s["rank"] for s in found["suggestions"]] == [1, 2, 3, 4]
    assert all(s["params"]["lr"] >= 0.001 for s in found["suggestions"])
    for s in found["suggestions"]:
        saved = client.get_run(s["run_id"])
        assert saved.info.status == "SCHEDULED"
        assert saved.data.params == {name: str(value) for name, value in s["params"].items()}
        assert saved.data.tags["mlflow_meta.harvest_run"] == harvested["run_id"]
        assert saved.data.tags["mlflow_meta.model_version"] == "mlflow-meta-val_loss/1"
        assert shown.number(s["predicted"]) in saved.data.tags["mlflow.note.content"]
        near = client.get_run(saved.data.tags["mlflow_meta.nearest_run"])
        address = f"#/experiments/{near.info.experiment_id}/runs/{near.info.run_id}"
        got = f" got {shown.number(near.data.metrics['val_loss'])}."
        assert address in saved.data.tags["mlflow.note.content"]
        assert got in saved.data.tags["mlflow.note.content"]

    worked = data("work", "-e", "sweep-a", "--max-runs", "3", "--", sys.executable, TRAINER)
    assert (worked["n_trained"], worked["n_failed"]) == (3, 0)
    assert [r["rank"] for r in worked["runs"]] == [1, 2, 3]
    for r in worked["runs"]:
        saved = client.get_run(r["run_id"])
        assert saved.info.status == "FINISHED"
        assert saved.data.metrics["val_loss"] > 0

    picture = tmp_path / "progress.png"
    reported = data("report", "-e", "sweep-a", "--out", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [s["status"] for s in reported["suggested"]] == ["FINISHED"] * 3 + ["SCHEDULED"]
    assert reported["n_before"] == 24
    assert reported["best_after"] <= reported["best_before"]

    again = data("harvest")
    assert again["n_trials"] == 51
    second = data("suggest", "-e", "sweep-a", "-n", "4", "--space", str(space_file), "--seed", "1")
    tried = [s["params"] for s in found["suggestions"]]
    assert all(s["params"] not in tried for s in second["suggestions"])
    assert second["n_unseen"] == 3
    assert second["best_so_far"] == reported["best_after"]


def test_a_description_can_not_be_broken_by_a_choice_that_somebody_logged(
    uri: str, client: MlflowClient
) -> None:
    odd = client.create_experiment("odd")
    for i in range(16):
        params = {"kind": ("a", "`](http://evil) <b>")[i % 2], "x": i / 16}
        add_run(client, odd, params=params, metrics={"val_loss": float(abs(i - 7))})
    done("harvest", "-e", "odd")
    quickly_trained("val_loss")
    for s in data("suggest", "-e", "odd", "-n", "4")["suggestions"]:
        tags = client.get_run(s["run_id"]).data.tags
        note = tags["mlflow.note.content"]
        line = next(line for line in note.splitlines() if "Nearest of what was run" in line)
        outside = "".join(line.partition("Nearest")[2].split("`")[::2])
        assert "](http" not in outside and "<b>" not in outside
        assert f"({run_link(odd, tags['mlflow_meta.nearest_run'])})" in outside


def run_link(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def test_explain_says_what_matters_and_writes_nothing(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    assert "No meta-model has been trained yet" in refusal("explain", "-e", "sweep-a")
    done("harvest")
    trained = data("train", "--metric", "accuracy")
    files = {file.path for file in client.list_artifacts(trained["run_id"])}
    assert {"importance.csv", "importance.png", "partial_dependence.png"} <= files
    before = Path(uri.removeprefix("sqlite:///")).read_bytes()
    picture = tmp_path / "why.png"
    found = data("explain", "-e", "sweep-a", "--out", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {row["param"] for row in found["importance"]} == {"model", "lr", "depth", "units"}
    assert found["importance"][0]["param"] == "lr"
    curve = found["partial_dependence"]["lr"]
    assert all(0 <= point["low"] <= point["high"] <= 1 for point in curve)
    best = max(curve, key=lambda point: point["mean"])
    assert 0.001 < best["at"] < 0.1
    assert found["sentence"].startswith("accuracy is best with lr near 0.")
    assert data("explain", "-e", "sweep-a") == found
    told = done("explain", "-e", "sweep-a")
    assert found["sentence"] in told.stdout
    assert "Next: mlflow-meta suggest -e sweep-a" in told.stderr
    assert Path(uri.removeprefix("sqlite:///")).read_bytes() == before
    assert "no experiment 'sweep-x'" in refusal("explain", "-e", "sweep-x")


def test_tables_are_for_people_and_words_go_to_stderr(uri: str) -> None:
    result = done("harvest")
    assert "sweep-a" in result.stdout
    assert "Next: mlflow-meta train --metric" in result.stderr
    trained = done("train", "--metric", "val_loss")
    assert (
        "Registered mlflow-meta-val_loss version 1, promoted: there was no champion."
        in trained.stdout
    )
    found = done("suggest", "-e", "sweep-a", "-n", "2")
    assert "Scheduled 2 runs in sweep-a." in found.stdout
    assert f"mlflow ui --backend-store-uri {uri}" in found.stdout
    assert "units=" in found.stdout
    assert "val_loss" in done("report", "-e", "sweep-a").stdout
    assert "val_loss" in done("harvest", "--list-metrics").stdout


def test_a_model_with_a_formula_is_searched_whole_and_what_is_proven_is_said(uri: str) -> None:
    done("harvest")
    assert tuple(ZOO) == KINDS
    trained = data("train", "--metric", "val_loss", "--kind", "lightgbm", "--kind", "linear")
    kinds = {c["model"] for c in trained["candidates"]} - set(BASELINES)
    assert kinds == {"lightgbm", "linear"}
    found = data("suggest", "-e", "sweep-a", "--dry-run", "--search-for", "30s")
    searched = found["searched"]
    assert searched["n_assessed"] == searched["n_configs"] > 1000
    # Minimised: the first suggestion's own prediction is the best that was found.
    assert searched["best"] == pytest.approx(found["suggestions"][0]["predicted"])
    assert searched["bound"] <= searched["best"]
    said = done("suggest", "-e", "sweep-a", "--dry-run").stdout
    assert re.search(r"Assessed \S+ configurations in \S+ m?s: none ", said)
    words: list[str] = []
    suggest(MlflowStore(uri), "sweep-a", dry_run=True, progress=words.append)
    assert re.fullmatch(
        r"searching: best \S+, none beyond \S+, gap \S+, \S+ configurations/s", words[-1]
    )


def test_a_suggested_run_says_how_it_was_found(uri: str, client: MlflowClient) -> None:
    done("harvest")
    done("train", "--metric", "val_loss", "--kind", "linear")
    found = data("suggest", "-e", "sweep-a", "-n", "1")
    saved = client.get_run(found["suggestions"][0]["run_id"]).data.tags["mlflow.note.content"]
    assert "none is predicted better than" in saved


def test_a_model_without_a_formula_says_how_many_it_was_asked_about(uri: str) -> None:
    done("harvest")
    done("train", "--metric", "val_loss", "--kind", "gaussian_process")
    found = data("suggest", "-e", "sweep-a", "--dry-run")
    assert found["searched"]["n_assessed"] > 1000
    assert found["searched"]["gap"] is None
    said = done("suggest", "-e", "sweep-a", "--dry-run").stdout
    assert re.search(r"Predicted \S+ configurations of a continuous space in ", said)


def test_a_budget_goes_with_a_meta_model_and_must_be_a_time(uri: str) -> None:
    result = run("suggest", "-e", "sweep-a", "--explore", "--budget", "30s")
    assert result.exit_code == 2
    assert "leave out --budget." in result.stderr
    assert "write 90, 90s, 10m or 2h" in run("suggest", "-e", "a", "--budget", "soon").stderr


def test_equal_seeds_give_equal_suggestions_and_a_dry_run_writes_nothing(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    quickly_trained("accuracy", "--direction", "maximize")
    twice = [data("suggest", "-e", "sweep-b", "--seed", "7", "--dry-run") for _ in range(2)]
    for found in twice:
        del found["searched"]["seconds"]
    assert twice[0] == twice[1]
    assert twice[0]["suggestions"][0]["run_id"] is None
    experiment = client.get_experiment_by_name("sweep-b").experiment_id
    assert client.search_runs([experiment], "attributes.status = 'SCHEDULED'") == []


def test_a_maximised_metric_is_predicted_in_its_own_direction(uri: str) -> None:
    done("harvest")
    quickly_trained("accuracy")
    found = data("suggest", "-e", "sweep-a", "--dry-run")
    assert found["direction"] == "maximize"
    first, last = found["suggestions"][0], found["suggestions"][-1]
    assert first["predicted"] >= last["predicted"]
    assert 0.9 < found["best_so_far"] < 1
    assert all(s["low"] <= s["predicted"] <= s["high"] <= 1 for s in found["suggestions"])


def test_an_experiment_without_runs_is_suggested_for_from_what_others_have_learned(
    uri: str, client: MlflowClient
) -> None:
    client.create_experiment("sweep-new")
    done("harvest")
    quickly_trained("val_loss")
    found = data("suggest", "-e", "sweep-new", "-n", "3")
    assert len(found["suggestions"]) == 3
    assert found["best_so_far"] is None
    note = client.get_run(found["suggestions"][0]["run_id"]).data.tags["mlflow.note.content"]
    assert "No run of this task was known" in note


def test_tune_runs_the_whole_loop(uri: str) -> None:
    command = ["--", sys.executable, TRAINER]
    options = ["--metric", "val_loss", "--rounds", "2", "-n", "2", "--seed", "3"]
    found = data("tune", "-e", "sweep-a", *options, *command)
    assert [s["status"] for s in found["suggested"]] == ["FINISHED"] * 4
    assert found["best_after"] <= found["best_before"]
    frame = MlflowStore(uri).read(["sweep-a"]).frame
    median = frame["metrics.val_loss"].median()
    assert all(s["got"] < median for s in found["suggested"])


def test_a_training_that_fails_is_told_and_its_run_is_failed(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    quickly_trained("val_loss")
    done("suggest", "-e", "sweep-a", "-n", "1")
    result = run("work", "-e", "sweep-a", "--", sys.executable, TRAINER, "--fail")
    assert result.exit_code == 1
    assert "ended with code 3" in result.stderr
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    (failed,) = client.search_runs([experiment], "tags.`mlflow_meta.rank` = '1'")
    assert failed.info.status == "FAILED"
    assert "Nothing waits" in done("work", "-e", "sweep-a", "--", "true").stderr


def test_a_program_that_always_fails_does_not_burn_the_whole_queue(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    quickly_trained("val_loss")
    done("suggest", "-e", "sweep-a", "-n", "4")
    assert run("work", "-e", "sweep-a", "--", "false").exit_code == 1
    experiment = client.get_experiment_by_name("sweep-a").experiment_id
    found = client.search_runs([experiment], "tags.`mlflow_meta.rank` != ''")
    statuses = sorted(run.info.status for run in found)
    assert statuses == ["FAILED", "FAILED", "SCHEDULED", "SCHEDULED"]
    line = refusal("tune", "-e", "sweep-b", "--metric", "val_loss", "-n", "2", "--", "false")
    assert "All trainings of round 1 failed, the last with code 1" in line


def test_a_run_that_a_dead_worker_has_claimed_is_told_and_tried_again(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    quickly_trained("val_loss")
    (s,) = data("suggest", "-e", "sweep-a", "-n", "1")["suggestions"]
    client.log_param(s["run_id"], "mlflow_meta.claim", "of-a-worker-that-died")
    told = done("work", "-e", "sweep-a", "--lease", "1s", "--", "true")
    assert "1 run that another worker has claimed" in told.stderr
    assert "Trained 1 runs, 0 failed." in told.stdout
    assert client.get_run(s["run_id"]).info.status == "KILLED"


def test_the_report_keeps_batches_together_the_newest_first(uri: str) -> None:
    done("harvest")
    quickly_trained("val_loss")
    batches = [data("suggest", "-e", "sweep-a", "-n", "2", "--seed", str(i)) for i in range(2)]
    expected = [s["run_id"] for batch in reversed(batches) for s in batch["suggestions"]]
    store = MlflowStore(uri)
    (objective,) = suggested.suggested_objectives(store, "sweep-a")
    assert list(suggested.suggested(store, "sweep-a", objective)["run_id"]) == expected


def test_only_params_that_belong_together_are_suggested_where_a_task_has_few_trials(
    uri: str, client: MlflowClient
) -> None:
    other = client.create_experiment("forest")
    young = client.create_experiment("young-forest")
    for i in range(12):
        params = {"trees": 10 + i, "leaves": 2 + i % 5}
        add_run(client, other, params=params, metrics={"val_loss": 1.0 / (i + 1)})
    for i in range(3):
        params = {"trees": 10 + i, "leaves": 2 + i % 5}
        add_run(client, young, params=params, metrics={"another_loss": 1.0 / (i + 1)})
    done("harvest")
    quickly_trained("val_loss")
    result = done("suggest", "-e", "young-forest", "-n", "2")
    assert "No run of young-forest has val_loss yet" in result.stderr
    for s in data("suggest", "-e", "young-forest", "--dry-run")["suggestions"]:
        assert set(s["params"]) == {"trees", "leaves"}


def test_a_param_that_nobody_logged_is_told(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters: {lr: {type: float, low: 0.1, high: 1.0}, dropout: {type: float, "
                    "low: 0.0, high: 0.5}}")  # fmt: skip
    done("harvest")
    quickly_trained("val_loss")
    for options in (["--dry-run"], []):
        result = done("suggest", "-e", "sweep-a", "--space", str(path), *options)
        assert "Nothing is known of dropout" in result.stderr


def test_a_param_that_is_misspelt_in_a_space_is_told_with_the_one_that_was_logged() -> None:
    trials = pd.DataFrame({"params.lr": [0.1], "params.max_depth": [3], "value": [1.0]})
    depth = {"type": "int", "low": 2, "high": 9}
    names = ("lr", "max_dept", "dropout")
    space = SearchSpace.from_dict({name: depth for name in names})
    assert never_logged(space, trials) == ["max_dept (did you mean max_depth?)", "dropout"]


def test_a_copy_that_can_not_be_written_is_one_line(uri: str) -> None:
    assert "/no/such/folder" in refusal("harvest", "--dry-run", "--out", "/no/such/folder/x")


def test_params_reach_the_program_in_the_places_that_a_template_gives_them(uri: str) -> None:
    done("harvest")
    quickly_trained("val_loss")
    done("suggest", "-e", "sweep-a", "-n", "1")
    command = ["--", "echo", "--rate={lr}", "{model}"]
    (argv,) = data("work", "-e", "sweep-a", "--dry-run", *command)["commands"]
    assert argv[0] == "echo"
    assert float(argv[1].removeprefix("--rate=")) > 0
    assert argv[2] in ("tree", "mlp")
    line = refusal("work", "-e", "sweep-a", "--", "echo", "{rate}")
    assert "{rate} names no param" in line


def test_doctor_says_what_can_be_learned(uri: str, client: MlflowClient) -> None:
    add_run(client, client.create_experiment("young"), params={"a": 1}, metrics={"loss": 1.0})
    found = data("doctor")
    assert found["ok"] is True
    by_name = {row["experiment"]: row for row in found["experiments"]}
    assert by_name["sweep-a"]["varied"] == 4
    assert "mlflow-meta train" in by_name["sweep-a"]["advice"]
    assert by_name["young"]["advice"] == "no param varies: nothing to learn"
    assert client.get_experiment_by_name("mlflow-meta") is not None
    assert "may write" in done("doctor", "--dry-run").stdout


# What goes wrong in the world is one line that says what to do.


def test_errors_before_there_is_anything(uri: str) -> None:
    assert "Run `mlflow-meta harvest` first" in refusal("train", "--metric", "val_loss")
    assert "No meta-model has been trained yet" in refusal("suggest", "-e", "sweep-a")
    assert "mlflow-meta train --metric x`" in refusal("suggest", "-e", "sweep-a", "--metric", "x")
    assert "Nothing was suggested for 'sweep-a'" in refusal("report", "-e", "sweep-a")


def test_an_experiment_that_does_not_exist_is_named_with_those_that_are_alike(uri: str) -> None:
    done("harvest")
    quickly_trained("val_loss")
    for command in (["harvest"], ["suggest"], ["work"], ["report"]):
        rest = ["--", "true"] if command == ["work"] else []
        line = refusal(*command, "-e", "sweep-x", *rest)
        assert "no experiment 'sweep-x'" in line
        assert "'sweep-a'" in line
    assert "harvest -e sweep-x" in refusal("train", "-e", "sweep-x", "--metric", "val_loss")
    strange = refusal("harvest", "-e", "zzz")
    assert "Did you mean" not in strange
    assert "'sweep-a'" in strange and "'mlflow-meta'" not in strange


def test_the_next_command_goes_to_the_server_that_this_one_was_given(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--tracking-uri" not in done("harvest").stderr  # the environment holds for both
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    next_line = done("harvest", "--tracking-uri", uri).stderr.splitlines()[-1]
    command = shlex.split(next_line.removeprefix("Next: mlflow-meta "))
    assert command[-2:] == ["--tracking-uri", uri]
    done(*command)
    next_line = done("suggest", "-e", "sweep-a", "-n", "1", "--tracking-uri", uri).stderr
    assert f"work -e sweep-a --tracking-uri {uri} -- python train.py" in next_line


def test_a_metric_that_nobody_logged_is_told_with_those_that_there_are(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    before = len(client.search_registered_models())
    line = refusal("train", "--metric", "rmse")
    assert "None of the 48 finished runs has the metric 'rmse'" in line
    assert "val_loss (48)" in line
    assert "Pass --metric" in refusal("train")
    assert len(client.search_registered_models()) == before


def test_a_metric_without_a_known_direction_is_asked_about(uri: str, client: MlflowClient) -> None:
    experiment = client.create_experiment("odd")
    for i in range(10):
        add_run(client, experiment, params={"a": i}, metrics={"quux": float(i)})
    done("harvest")
    assert "--direction minimize or maximize" in refusal("train", "--metric", "quux")
    assert data("train", "--metric", "quux", "--direction", "maximize")["n_trials"] == 10


def test_too_few_runs_are_told_with_how_many_are_missing(
    sqlite_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    assert "Nothing to learn yet" in done("harvest").stderr
    experiment = client.create_experiment("young")
    for i in range(5):
        add_run(client, experiment, params={"a": i}, metrics={"loss": float(i)})
    done("harvest")
    assert "Train 3 more" in refusal("train", "--metric", "loss", code=3)
    trainings = client.search_runs(
        [client.get_experiment_by_name("mlflow-meta").experiment_id],
        "tags.`mlflow_meta.kind` = 'train'",
    )
    assert trainings == []


def test_an_address_that_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert "No MLflow server answers" in refusal("harvest", "--tracking-uri", nowhere)
    assert "is a file store" in refusal("harvest", "--tracking-uri", str(tmp_path))
    typo = f"sqlite:///{tmp_path / 'typo.db'}"
    assert "There is no MLflow store at" in refusal("harvest", "--tracking-uri", typo)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("parameters: {lr: {type: float, low: 1, high: small}}", "lr: `high` must be a number"),
        ("parameters: {lr: {type: real, low: 1, high: 2}}", "lr: `type` must be float, int or"),
        ("parameters: {lr: {type: int, low: 3, high: 1}}", "lr: `low < high` must hold"),
        ("parameters: [lr", "no YAML"),
        ("just words", "needs `parameters:`"),
        ("parameters: {a: {type: categorical, choices: x}}", "a: `choices` must be a list"),
    ],
)
def test_a_space_file_that_is_wrong_is_told_with_the_param(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    line = refusal("suggest", "-e", "sweep-a", "--space", str(path))
    assert complaint in line
    assert str(path) in line


def test_a_program_that_does_not_exist_is_told_before_anything_is_claimed(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    quickly_trained("val_loss")
    (s,) = data("suggest", "-e", "sweep-a", "-n", "1")["suggestions"]
    assert "no program 'trian'" in refusal("work", "-e", "sweep-a", "--", "trian")
    assert client.get_run(s["run_id"]).info.status == "SCHEDULED"


def test_a_space_that_is_used_up_gives_what_is_left_and_then_says_so(
    uri: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text("parameters: {depth: {type: int, low: 100, high: 102}}")
    done("harvest")
    quickly_trained("val_loss")
    options = ["-e", "sweep-a", "--space", str(path)]
    result = done("suggest", *options, "-n", "5")
    assert "Scheduled 3 runs" in result.stdout
    assert "no more than 3" in result.stderr
    assert "These 3 runs are in sweep-a already" in done("suggest", *options).stdout
    assert "Widen the space" in refusal("suggest", *options, "--more")


@pytest.mark.slow
def test_the_loop_works_through_a_server(empty_database: Path, tmp_path: Path) -> None:
    database = tmp_path / "server.db"
    database.write_bytes(empty_database.read_bytes())
    with mlflow_server(f"sqlite:///{database}", tmp_path / "served") as url:
        client = MlflowClient(url)
        fill(client, tmp_path)
        at = ["--tracking-uri", url]
        assert data("harvest", *at)["n_trials"] == 48
        data("train", "--metric", "val_loss", *at)
        found = data("suggest", "-e", "sweep-a", "-n", "2", *at)
        worked = data("work", "-e", "sweep-a", *at, "--", sys.executable, TRAINER)
        assert worked["n_trained"] == 2
        assert f"{url}/#/experiments/" in done("suggest", "-e", "sweep-b", *at).stdout
        run_id = found["suggestions"][0]["run_id"]
        assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_a_strangers_store_goes_all_the_way_to_suggestions(tmp_path: Path) -> None:
    need(SHARED.is_dir(), "the strangers' tracking stores (shared/stores) are not here")
    database = tmp_path / "taxi.db"
    with database.open("wb") as file:
        archive = SHARED / "stores" / "taxi-a.db.gz"
        subprocess.run(["gunzip", "-c", str(archive)], stdout=file, check=True)
    at = ["--tracking-uri", f"sqlite:///{database}"]
    assert "mlflow db upgrade" in refusal("harvest", *at)
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{database}"]
    subprocess.run(upgrade, check=True, capture_output=True, env=dict(os.environ))
    assert data("harvest", "--all-experiments", *at)["n_trials"] == 112
    assert data("train", "--metric", "rmse", *at)["candidates"][0]["spearman"] > 0.5
    found = data("suggest", "-e", "nyc-taxi-experiment", *at)
    params = found["suggestions"][0]["params"]
    assert set(params) == {
        "learning_rate",
        "max_depth",
        "min_child_weight",
        "reg_alpha",
        "reg_lambda",
    }
    assert isinstance(params["max_depth"], int)


# What is learned, from whom, and what is one task.


def test_teams_that_spell_a_metric_differently_are_learned_from_together(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    other = client.create_experiment("other-team")
    for i in range(12):
        metrics = {"test_loss": 0.2 + (i - 6) ** 2 / 100}
        params = {"model": "tree", "lr": 0.03, "depth": i + 1}
        add_run(client, other, params=params, metrics=metrics)
    both = client.get_experiment_by_name("sweep-b").experiment_id
    params = {"model": "tree", "lr": 0.03, "depth": 6}
    add_run(client, both, params=params, metrics={"val_loss": 9.0, "test_loss": 8.0})
    done("harvest")
    result = done("train", "--metric", "test_loss, val_loss")
    assert "minimize test_loss (or val_loss) from 61 trials of 3 tasks" in result.stdout
    assert "1 runs have different values under several of the names" in result.stderr
    champion = registry.champion(MlflowStore(uri), metric="test_loss,val_loss")
    expected = {"metric": "test_loss", "direction": "minimize", "aliases": ["val_loss"]}
    assert champion.objective.to_dict() == {**expected, "at": "last"}

    found = data("suggest", "-e", "sweep-a", "-n", "2", "--metric", "test_loss,val_loss")
    assert {key: found[key] for key in expected} == expected
    saved = client.get_run(found["suggestions"][0]["run_id"]).data
    assert saved.tags["mlflow_meta.aliases"] == '["val_loss"]'
    assert "predicted_test_loss" in saved.metrics
    done("work", "-e", "sweep-a", "--", sys.executable, TRAINER)  # it logs val_loss alone
    reported = data("report", "-e", "sweep-a", "--out", str(tmp_path / "progress.png"))
    assert {key: reported[key] for key in expected} == expected
    for s in reported["suggested"]:
        assert s["got"] == client.get_run(s["run_id"]).data.metrics["val_loss"]
    assert data("report", "-e", "sweep-a", "--metric", "test_loss") == reported
    assert found["best_so_far"] == reported["best_before"]

    done("harvest")
    again = done("suggest", "-e", "sweep-a", "-n", "1", "--dry-run")
    assert "Updated with 2 newer runs before the search." in again.stderr


def test_tune_keeps_to_the_spellings(uri: str) -> None:
    options = ["--metric", "loss,val_loss", "--rounds", "2", "-n", "1", "--seed", "3"]
    found = data("tune", "-e", "sweep-a", *options, "--", sys.executable, TRAINER)
    assert (found["metric"], found["aliases"]) == ("loss", ["val_loss"])
    assert [s["got"] > 0 for s in found["suggested"]] == [True, True]


def test_without_a_metric_the_proposed_command_works_as_it_stands(
    uri: str, client: MlflowClient
) -> None:
    done("harvest")
    line = refusal("train")
    command = line.split("`")[1]
    assert command == "mlflow-meta train --metric val_loss --direction minimize"
    assert "(48 of 48 runs in 2 of 2 experiments)" in line
    assert data(*shlex.split(command)[1:])["metric"] == "val_loss"
    examined = data("doctor", "--dry-run")
    assert examined["proposals"][0]["command"] == command
    assert examined["experiments"][0]["advice"] == (
        "mlflow-meta train -e sweep-a --metric val_loss --direction minimize"
    )
    assert f"then {command} (48 of 48 runs" in done("doctor", "--dry-run").stderr


def test_predictions_alone_are_no_metric_to_learn(uri: str, client: MlflowClient) -> None:
    guesses = client.create_experiment("guesses")
    for i in range(12):
        add_run(client, guesses, params={"x": i}, metrics={"predicted_loss": float(i)})
    by_name = {row["experiment"]: row for row in data("doctor", "--dry-run")["experiments"]}
    assert by_name["guesses"]["advice"].startswith("train 8 more runs")


def test_metrics_of_opposite_directions_are_not_one(uri: str) -> None:
    done("harvest")
    line = refusal("train", "--metric", "val_loss,accuracy", "--direction", "minimize")
    assert "val_loss is to minimize, accuracy is to maximize" in line


def by_city(client: MlflowClient) -> None:
    """An experiment whose runs are about two cities; some of another experiment are, too."""
    cities = client.create_experiment("cities")
    mixed = client.create_experiment("mixed")
    for i in range(24):
        params = {"city": ("Oslo", "Bergen")[i % 2], "lr": 10 ** (-i / 8), "depth": 2 + i % 7}
        metrics = {"rmse": (1 + 99 * (i % 2)) * (1 + abs(i % 7 - 3))}
        add_run(client, cities if i % 3 else mixed, params=params, metrics=metrics)


def test_a_param_that_makes_tasks_is_given_to_the_program_and_not_chosen(
    uri: str, client: MlflowClient
) -> None:
    by_city(client)
    done("harvest")
    trained = data("train", "--metric", "rmse", "--tasks-by", "city")
    assert (trained["n_tasks"], trained["tasks_by"]) == (2, "city")
    assert "--task with one of 'Oslo', 'Bergen'" in refusal("suggest", "-e", "cities").replace(
        "'Bergen', 'Oslo'", "'Oslo', 'Bergen'"
    )
    for city, scale in (("Oslo", 1), ("Bergen", 100)):
        found = data("suggest", "-e", "cities", "--task", city, "-n", "2")
        assert (found["task"], found["tasks_by"], found["best_so_far"]) == (city, "city", scale)
        for s in found["suggestions"]:
            assert s["params"]["city"] == city
            assert client.get_run(s["run_id"]).data.params["city"] == city
    unknown = data("suggest", "-e", "cities", "--task", "Narvik", "--dry-run", "-n", "1")
    assert unknown["suggestions"][0]["params"]["city"] == "Narvik"


def test_fresh_runs_fall_into_the_tasks_that_the_model_was_trained_by(
    uri: str, client: MlflowClient
) -> None:
    by_city(client)
    done("harvest")
    quickly_trained("rmse", "--tasks-by", "params.city")
    young = client.create_experiment("young")
    params = {"city": "Oslo", "lr": 0.5, "depth": 3}
    add_run(client, young, params=params, metrics={"rmse": 0.25})
    done("harvest")
    found = data("suggest", "-e", "young", "-n", "1", "--dry-run")
    assert (found["task"], found["best_so_far"], found["n_unseen"]) == ("Oslo", 0.25, 1)
    done("harvest", "-e", "sweep-a")  # where no run has a city
    found = data("suggest", "-e", "cities", "--task", "Oslo", "-n", "1", "--dry-run")
    assert (found["best_so_far"], found["suggestions"][0]["params"]["city"]) == (1, "Oslo")


def test_tasks_by_what_no_run_has_is_told(uri: str) -> None:
    done("harvest")
    line = refusal("train", "--metric", "val_loss", "--tasks-by", "town")
    assert "No run has 'town', which is to say its task" in line
    assert "params.lr" in line
