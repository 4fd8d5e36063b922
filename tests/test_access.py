"""Who may do what, and how servers are reached: accounts, tokens, TLS, workspaces, old versions."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import requests
from certificates import Authority, authority
from click.testing import CliRunner, Result
from conftest import fill
from fault_proxy import FaultProxy
from mlflow import MlflowClient
from servers import ADMIN, mlflow_server, python_with_mlflow, server_with_accounts

from mlflow_meta.cli import main
from mlflow_meta.cli.lock import alone

ROOT = Path(__file__).parent.parent
TRAIN = (sys.executable, str(Path(__file__).with_name("trainer.py")))
LEARN = ("train", "--metric", "val_loss", "--kind", "linear")
TOKEN = "a-token-of-tests"
AT_ONCE_S = 20.0  # in which what can't succeed is told; MLflow's client tries again for minutes

pytestmark = pytest.mark.slow


def run(*args: str) -> Result:
    result = CliRunner().invoke(main, args)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*args: str, codes: tuple[int, ...] = (0,)) -> Result:
    result = run(*args)
    assert result.exit_code in codes, result.output
    return result


def refusal(*args: str) -> str:
    """The one line that a command says when it fails."""
    started = time.monotonic()
    result = run(*args)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert time.monotonic() - started < AT_ONCE_S
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def whole_loop(experiment: str = "sweep-a") -> str:
    """Every command that reads or writes, through the front door; the run that was suggested."""
    done("harvest")
    done(*LEARN, codes=(0, 3))  # 3: learned, but of too few runs to tell good from bad
    told = json.loads(done("suggest", "-e", experiment, "-n", "1", "--json").stdout)
    (run_id,) = [suggestion["run_id"] for suggestion in told["suggestions"]]
    assert ", 0 failed." in done("work", "-e", experiment, "--", *TRAIN).stdout
    done("harvest", "--curves", "val_*")
    done("doctor")
    report = json.loads(done("report", "-e", experiment, "--json").stdout)
    (suggested,) = [row for row in report["suggested"] if row["run_id"] == run_id]
    assert suggested["status"] == "FINISHED"
    assert suggested["got"] is not None
    return str(run_id)


@pytest.fixture(scope="module")
def filled(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the runs of `fill`, to be copied."""
    folder = tmp_path_factory.mktemp("filled")
    path = Path(shutil.copy(empty_database, folder / "mlflow.db"))
    fill(MlflowClient(tracking_uri=f"sqlite:///{path}"), folder, n=12)
    return path


# Accounts


@dataclass(frozen=True, slots=True)
class Accounts:
    """A server with accounts, and a proxy before it, whose log has what was asked."""

    proxy: FaultProxy
    folder: Path

    def log_in(self, patch: pytest.MonkeyPatch, name: str, password: str | None = None) -> None:
        patch.setenv("MLFLOW_TRACKING_URI", self.proxy.url)
        patch.setenv("MLFLOW_TRACKING_USERNAME", name)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password or f"password-of-{name}")

    def content(self) -> tuple[str, list[str]]:
        """All that is stored: each row of each table, and each artifact's place."""
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database:
            rows = "\n".join(database.iterdump())
        files = (self.folder / "artifacts-of-server").rglob("*")
        return rows, sorted(str(file) for file in files)


def ask(url: str, path: str, body: Mapping[str, str], method: str = "POST") -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, f"{url}/api/{path}", json=body, auth=ADMIN, timeout=60)
    assert answer.status_code == 200, answer.text


def add_user(url: str, name: str) -> None:
    ask(url, "2.0/mlflow/users/create", {"username": name, "password": f"password-of-{name}"})


def grant(url: str, name: str, permission: str, kind: str, resource: str) -> None:
    grants = {"resource_type": kind, "resource_id": resource, "permission": permission}
    ask(url, "3.0/mlflow/users/permissions/grant", {"username": name, **grants})


@pytest.fixture(scope="module")
def accounts(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    """Where the ordinary user `founder` has harvested and trained first, on what it may read."""
    folder = tmp_path_factory.mktemp("accounts")
    backend = f"sqlite:///{shutil.copy(filled, folder / 'mlflow.db')}"
    ids = {e.name: e.experiment_id for e in MlflowClient(backend).search_experiments()}
    with server_with_accounts(backend, folder) as url, FaultProxy(url) as proxy:
        for name in ("founder", "editor", "reader", "harvester", "nobody"):
            add_user(url, name)
            if name != "nobody":
                permission = "EDIT" if name == "editor" else "READ"
                grant(url, name, permission, "experiment", ids["sweep-a"])
                grant(url, name, "READ", "experiment", ids["sweep-b"])
        with pytest.MonkeyPatch.context() as patch:
            there = Accounts(proxy, folder)
            there.log_in(patch, "founder")
            done("harvest")
            done(*LEARN)
        own = MlflowClient(backend).get_experiment_by_name("mlflow-meta").experiment_id
        for name, permission in (("editor", "EDIT"), ("reader", "READ"), ("harvester", "EDIT")):
            grant(url, name, permission, "experiment", own)
            permission = "EDIT" if name == "editor" else "READ"
            grant(url, name, permission, "registered_model", "mlflow-meta-val_loss")
        yield there


def test_who_may_edit_goes_through_the_whole_loop_and_never_deletes(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "editor")
    accounts.proxy.arm()
    whole_loop()
    asked = [(entry.method, entry.path) for entry in accounts.proxy.log]
    assert len(asked) > 50
    assert {method for method, _ in asked} <= {"GET", "POST", "PATCH", "PUT"}
    # What MLflow's server lets only those do who may manage a thing, or all of it.
    manages = re.compile(r"delete|restore|rename|permissions|users|roles|workspaces", re.IGNORECASE)
    paths = [path.partition("?")[0] for _, path in asked if "/mlflow-artifacts/" not in path]
    assert [path for path in paths if manages.search(path)] == []
    refused = [entry for entry in accounts.proxy.log if entry.upstream_status in (401, 403)]
    (entry,) = refused  # doctor asks whether `sweep-b` may be edited
    assert entry.path.endswith("/set-experiment-tag")
    assert b"key" not in entry.body


@pytest.mark.parametrize(
    "command",
    [
        ("suggest", "-e", "sweep-a"),
        ("suggest", "-e", "sweep-a", "--explore", "--metric", "val_loss"),
        ("work", "-e", "sweep-a", "--", *TRAIN),
        ("tune", "-e", "sweep-a", "--metric", "val_loss", "--", *TRAIN),
    ],
    ids=lambda command: "-".join(command[:1] + command[3:4]),
)
def test_who_may_only_read_an_experiment_is_told_before_anything_is_written_there(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    accounts.log_in(monkeypatch, "editor")
    done("suggest", "-e", "sweep-a", "-n", "1")  # so that there is something to work on
    accounts.log_in(monkeypatch, "reader")
    before = accounts.content()
    line = refusal(*command)
    assert re.match(
        r"The user 'reader' lacks the permission EDIT on the experiment 'sweep-a' \(id \d+\)\. "
        r"Nothing was written\. Ask the tracking server's administrator for EDIT on it\.",
        line,
    )
    assert accounts.content() == before


@pytest.mark.parametrize("command", [("harvest",), LEARN], ids=["harvest", "train"])
def test_who_may_only_read_our_own_experiment_is_told_before_anything_is_written_there(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    accounts.log_in(monkeypatch, "reader")
    before = accounts.content()
    line = refusal(*command)
    assert "The user 'reader' lacks the permission EDIT on the experiment 'mlflow-meta'" in line
    assert "Ask the tracking server's administrator for EDIT on it." in line
    assert accounts.content() == before


def test_to_harvest_it_takes_no_more_than_to_read_and_to_edit_our_own_experiment(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "harvester")
    done("harvest", "-e", "sweep-a")


def test_who_may_not_edit_the_registered_model_is_told_before_a_training_is_written(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "harvester")
    before = accounts.content()
    line = refusal(*LEARN)
    assert "'harvester' lacks the permission EDIT on the registered model 'mlflow-meta-val_" in line
    assert accounts.content() == before


def test_what_a_user_may_not_see_is_neither_read_nor_denied_to_exist(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "nobody")
    before = accounts.content()
    needs = "The user 'nobody' lacks the permission {} on the experiment 'sweep-a'"
    assert needs.format("EDIT") in refusal("suggest", "-e", "sweep-a")
    assert needs.format("EDIT") in refusal("work", "-e", "sweep-a", "--", *TRAIN)
    assert needs.format("READ") in refusal("report", "-e", "sweep-a")
    assert needs.format("READ") in refusal("harvest", "-e", "sweep-a", "--dry-run")
    assert accounts.content() == before


def test_a_champion_that_may_be_hidden_is_said_to_be_one(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "editor")
    line = refusal("suggest", "-e", "sweep-a", "--metric", "accuracy")
    assert "Run `mlflow-meta train --metric accuracy`. Or the user 'editor' lacks the " in line


def test_doctor_says_what_the_user_may(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.log_in(monkeypatch, "reader")
    result = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert "lacks the permission EDIT on the experiment 'mlflow-" in checks["may write"]["finding"]
    assert checks["may read"]["ok"]
    assert not checks["may suggest"]["ok"]
    assert "in 0 of 2 experiments" in checks["may suggest"]["finding"]
    accounts.log_in(monkeypatch, "editor")
    checks = {c["name"]: c for c in json.loads(done("doctor", "--json").stdout)["checks"]}
    assert "in 1 of 2 experiments" in checks["may suggest"]["finding"]
    assert "on the experiment 'sweep-b'" in checks["may suggest"]["finding"]


def test_a_wrong_password_or_none_is_one_line(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(monkeypatch, "editor", password="of-somebody-else")
    assert "knows no user 'editor' with this password" in refusal("harvest")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setenv("HOME", str(accounts.folder))  # no ~/.mlflow/credentials either
    assert "wants to know who you are. Set MLFLOW_TRACKING_USERNAME and" in refusal("harvest")
    assert "of-somebody-else" not in refusal("harvest")


# Tokens and TLS


@pytest.fixture(scope="module")
def plain(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that knows neither accounts nor TLS."""
    folder = tmp_path_factory.mktemp("plain")
    backend = f"sqlite:///{shutil.copy(filled, folder / 'mlflow.db')}"
    with mlflow_server(backend, folder / "artifacts") as url:
        yield url


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(plain: str, certificates: Authority) -> Iterator[FaultProxy]:
    """The server behind TLS, for those with the token."""
    with FaultProxy(plain, token=TOKEN, tls=certificates.context()) as proxy:
        yield proxy


@pytest.fixture
def reached(
    guarded: FaultProxy, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The environment of one who reaches `guarded`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.url)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates.ca))
    return monkeypatch


def test_the_whole_loop_works_behind_tls_with_a_token(
    reached: pytest.MonkeyPatch, guarded: FaultProxy
) -> None:
    guarded.arm()
    whole_loop()
    assert len(guarded.log) > 50


def test_a_token_that_is_wrong_or_missing_is_one_line(reached: pytest.MonkeyPatch) -> None:
    reached.setenv("MLFLOW_TRACKING_TOKEN", "of-yesterday")
    line = refusal("harvest")
    assert "does not take MLFLOW_TRACKING_TOKEN: it is mistyped, or has expired" in line
    assert "of-yesterday" not in line
    reached.delenv("MLFLOW_TRACKING_TOKEN")
    assert "wants to know who you are. Set MLFLOW_TRACKING_USERNAME and" in refusal("harvest")


def test_a_certificate_of_an_unknown_authority_is_one_line_that_names_the_settings(
    reached: pytest.MonkeyPatch,
) -> None:
    reached.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    line = refusal("harvest")
    assert "is not trusted here (certificate verify failed: " in line
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in line
    assert "MLFLOW_TRACKING_INSECURE_TLS=true" in line


def test_a_file_of_authorities_that_is_not_there_is_one_line(
    reached: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reached.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "typo.pem"))
    line = refusal("harvest")
    assert "typo.pem" in line
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in line


def test_a_certificate_may_be_left_unchecked_without_a_warning_for_each_request(
    reached: pytest.MonkeyPatch,
) -> None:
    reached.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    reached.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    code = "import sys; from mlflow_meta.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "harvest", "--full"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "sweep-a" in told.stdout
    assert "Warning" not in told.stderr


def test_a_server_that_wants_a_certificate_of_its_clients_gets_one(
    plain: str, certificates: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(plain, tls=certificates.context(of_clients=True)) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificates.ca))
        assert "set MLFLOW_TRACKING_CLIENT_CERT_PATH to the file" in refusal("harvest")
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificates.client))
        done("harvest")


# Workspaces


@dataclass(frozen=True, slots=True)
class Workspaces:
    """A server whose workspaces `team-a` and `team-b` have an experiment `sweep-a` each."""

    url: str
    database: str
    runs: Mapping[str, set[str]]


@pytest.fixture(scope="module")
def workspaces(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspaces]:
    folder = tmp_path_factory.mktemp("workspaces")
    path = Path(shutil.copy(filled, folder / "mlflow.db"))
    runs = {}
    with closing(sqlite3.connect(path)) as database, database:
        for team, sweep in (("team-a", "sweep-a"), ("team-b", "sweep-b")):
            of_sweep = "SELECT experiment_id FROM experiments WHERE name = ?"
            select = f"SELECT run_uuid FROM runs WHERE experiment_id = ({of_sweep})"
            runs[team] = {row[0] for row in database.execute(select, [sweep])}
            move = "UPDATE experiments SET workspace = ?, name = 'sweep-a' WHERE name = ?"
            database.execute(move, [team, sweep])
    backend = f"sqlite:///{path}"
    with mlflow_server(backend, folder / "artifacts", options=["--enable-workspaces"]) as url:
        for team in runs:
            MlflowClient(url).create_workspace(team)
        yield Workspaces(url, backend, runs)


@pytest.fixture
def team(workspaces: Workspaces, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspaces.url)
    return monkeypatch


def test_two_workspaces_of_a_server_go_through_the_loop_and_do_not_see_each_other(
    workspaces: Workspaces, team: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suggested = {}
    team.setenv("MLFLOW_WORKSPACE", "team-a")
    suggested["team-a"] = whole_loop()
    assert "workspace team-a" in done("doctor").stdout

    team.setenv("MLFLOW_WORKSPACE", "team-b")
    assert "Nothing was harvested from" in refusal("space", "-e", "sweep-a")
    assert "No meta-model has been trained yet" in refusal("suggest", "-e", "sweep-a")
    assert "Nothing was suggested for 'sweep-a' yet" in refusal("report", "-e", "sweep-a")
    assert "Nothing waits" in done("work", "-e", "sweep-a", "--", *TRAIN).stderr
    suggested["team-b"] = whole_loop()

    for name, runs in workspaces.runs.items():
        team.setenv("MLFLOW_WORKSPACE", name)
        read = {}
        for way, options in (("rest", []), ("sql", ["--store-uri", workspaces.database])):
            path = tmp_path / f"{name}-{way}.parquet"
            done("harvest", "--full", "--out", str(path), *options)
            read[way] = pd.read_parquet(path)
        pd.testing.assert_frame_equal(read["rest"], read["sql"])
        found = set(read["sql"]["run_id"])
        assert found <= runs | {suggested[name]}
        assert len(found) > 12


def test_harvests_of_two_workspaces_do_not_wait_for_each_other(
    workspaces: Workspaces, team: pytest.MonkeyPatch
) -> None:
    team.setenv("MLFLOW_WORKSPACE", "team-a")
    with alone("harvest", workspaces.url):
        assert run("harvest").exit_code == 75
        team.setenv("MLFLOW_WORKSPACE", "team-b")
        done("harvest")


def test_the_address_of_suggested_runs_is_in_their_workspace(team: pytest.MonkeyPatch) -> None:
    team.setenv("MLFLOW_WORKSPACE", "team-a")
    done("harvest")
    told = done("suggest", "-e", "sweep-a", "--explore", "--metric", "val_loss", "-n", "1")
    (address,) = re.findall(r"http\S+", told.stdout + told.stderr)
    assert address.endswith("&workspace=team-a")


def test_a_workspace_that_is_not_there_is_one_line(team: pytest.MonkeyPatch, plain: str) -> None:
    team.setenv("MLFLOW_WORKSPACE", "team-z")
    line = refusal("harvest")
    assert "Workspace 'team-z' not found" in line
    assert "MLFLOW_WORKSPACE" in line
    team.setenv("MLFLOW_TRACKING_URI", plain)  # which has none at all
    line = refusal("harvest")
    assert "MLFLOW_WORKSPACE" in line


# Old servers


@pytest.fixture(scope="module", params=["2.9.2", "2.22.0"])
def old_python(request: pytest.FixtureRequest) -> str:
    return python_with_mlflow(request.param, ROOT / "build")


@pytest.mark.nightly
def test_the_whole_loop_works_on_an_old_server(
    old_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with mlflow_server(backend, tmp_path / "artifacts", python=old_python) as url:
        fill(MlflowClient(url), None, n=12)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        whole_loop()
        done("explain", "-e", "sweep-a")
        done("tune", "-e", "sweep-b", "--metric", "val_loss", "--rounds", "1", "-n", "1", "--",
             *TRAIN)  # fmt: skip
        done("harvest", "--full", "--store-uri", backend)
        monkeypatch.setenv("MLFLOW_WORKSPACE", "team-a")
        assert "MLFLOW_WORKSPACE" in refusal("harvest")


@pytest.mark.nightly
def test_an_old_server_with_accounts_tells_what_is_missing_before_anything_is_written(
    old_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with (
        server_with_accounts(backend, tmp_path, python=old_python) as url,
        FaultProxy(url) as proxy,
    ):
        there = Accounts(proxy, tmp_path)
        there.log_in(monkeypatch, *ADMIN)
        ids = fill(MlflowClient(url), None, n=12)
        for name, permission in (("editor", "EDIT"), ("reader", "READ")):
            add_user(url, name)
            for experiment in ids.values():
                grants = {"username": name, "permission": permission, "experiment_id": experiment}
                ask(url, "2.0/mlflow/experiments/permissions/create", grants)
        there.log_in(monkeypatch, "editor")
        whole_loop()
        there.log_in(monkeypatch, "reader")
        before = there.content()
        for command in (("suggest", "-e", "sweep-a"), ("work", "-e", "sweep-a", "--", *TRAIN)):
            line = refusal(*command)
            assert "The user 'reader' lacks the permission EDIT on the experiment 'sweep-a'" in line
        assert "lacks the permission EDIT on the experiment 'mlflow-meta'" in refusal("harvest")
        assert there.content() == before
