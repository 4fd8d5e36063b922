"""Tests for services/work.py and suggest: workers, people's decisions, and what is asked twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from schedules import scheduled

from mlflow_meta.attempt import Outcome
from mlflow_meta.cli import main
from mlflow_meta.services.harvest import harvest
from mlflow_meta.services.suggest import suggest, suggest_again
from mlflow_meta.services.train import train
from mlflow_meta.services.work import Rules, project_command, work
from mlflow_meta.store import MlflowStore, names, queue
from mlflow_meta.store.ledger import Ledger
from mlflow_meta.testing import InMemoryStore

TRAINER = str(Path(__file__).with_name("trainer.py"))
WRITES_ITS_ARGV = (
    "import json, os, sys; "
    "seen = open(os.environ['SEEN'] + os.environ['MLFLOW_RUN_ID'], 'w'); "
    "seen.write(json.dumps([[ord(c) for c in a] for a in sys.argv[1:]]))"
)
HOSTILE = [
    "$(touch x)", "`touch x`", "; rm -rf .", "a && b", "a | b", "> x", "* ? [a]", "~", "!!", "#",
    "'", '"', "'\"'", "\\", "\\\\n", "a\nb", "a\tb", " leading", "trailing ", "  ", "--help", "-",
    "--lr=1", "{lr}", "{}", "%s", "%(lr)s", "${HOME}", "$HOME", "\u00fc", "\u8a9e", "\U0001f600",
    "\u202eabc", "a\u0000b".replace("\u0000", ""), "1e-05", "0.00001", "None", "True", "x" * 5000,
    "a=b=c",
]  # fmt: skip


SLEEPS = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


def program(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_forty_hostile_values_reach_the_program_byte_for_byte(
    sqlite_uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(HOSTILE) == 40
    client.create_experiment("sweep")
    store = MlflowStore(sqlite_uri)
    monkeypatch.setenv("SEEN", f"{tmp_path}/")
    params = {f"p{i:02}": value for i, value in enumerate(HOSTILE)}
    (run_id,) = scheduled(store, params)
    assert client.get_run(run_id).data.params == params
    (done,) = work(store, "sweep", program(WRITES_ITS_ARGV))
    assert done.exit_code == 0
    argv = json.loads((tmp_path / run_id).read_text())
    told = {w.partition("=")[0]: w.partition("=")[2] for w in ("".join(map(chr, a)) for a in argv)}
    stored = client.get_run(run_id).data.params
    assert (
        told
        == {f"--{name}": stored[name] for name in params}
        == {f"--{name}": value for name, value in params.items()}
    )
    (second,) = scheduled(store, params | {"p": "2"})
    work(store, "sweep", [*program(WRITES_ITS_ARGV), "{p02}", "a{p05}b"])
    argv = json.loads((tmp_path / second).read_text())
    assert ["".join(map(chr, a)) for a in argv] == [HOSTILE[2], f"a{HOSTILE[5]}b"]


def test_what_a_training_prints_ends_in_the_runs_artifacts(
    sqlite_uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    client.create_experiment("sweep", artifact_location=(tmp_path / "artifacts").as_uri())
    store = MlflowStore(sqlite_uri)
    good, bad = scheduled(store, {"x": "1"}, {"x": "2"})
    code = (
        "import sys; print('said'); print('moaned', file=sys.stderr); "
        "sys.exit(sys.argv[1][-1] == '2')"
    )
    with (tmp_path / "output").open("w") as output:
        done = work(store, "sweep", program(code), output=output)
    assert [e.outcome for e in done] == [Outcome.FINISHED, Outcome.FAILED]
    assert sorted((tmp_path / "output").read_text().split()) == ["moaned"] * 2 + ["said"] * 2
    for run_id, status in ((good, "FINISHED"), (bad, "FAILED")):
        assert sorted(store.file(run_id, names.LOG_FILE).split()) == [b"moaned", b"said"]
        assert client.get_run(run_id).info.status == status


def test_each_gpu_has_one_training_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = InMemoryStore("sweep")
    monkeypatch.setenv("SEEN", f"{tmp_path}/")
    scheduled(store, *({"x": str(i)} for i in range(6)))
    code = (
        "import os, time; gpu = os.environ['CUDA_VISIBLE_DEVICES']; "
        "seen = os.environ['SEEN']; path = seen + 'gpu' + gpu; "
        "os.close(os.open(path, os.O_CREAT | os.O_EXCL)); "
        "time.sleep(0.3); os.remove(path); open(seen + 'done', 'a').write(gpu + '\\n')"
    )
    done = work(store, "sweep", program(code), Rules(gpus=["0", "3"]))
    assert [e.outcome for e in done] == [Outcome.FINISHED] * 6
    assert set((tmp_path / "done").read_text().split()) == {"0", "3"}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_trainings_run_at_a_time_as_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    store = InMemoryStore("sweep")
    monkeypatch.setenv("SEEN", f"{tmp_path}/")
    scheduled(store, *({"x": str(i)} for i in range(3)))
    code = (
        "import os, time; me = os.environ['SEEN'] + os.environ['MLFLOW_RUN_ID']; open(me, 'w'); "
        "time.sleep(1.0); print(len(os.listdir(os.environ['SEEN']))); os.remove(me)"
    )
    with (tmp_path.parent / "output").open("w+") as output:
        done = work(store, "sweep", program(code), Rules(concurrency=concurrency), output=output)
        output.seek(0)
        most = max(int(line.split()[-1]) for line in output)
    assert len(done) == 3
    assert most == concurrency


def test_a_worker_stops_after_so_many_runs_and_so_much_time() -> None:
    store = InMemoryStore("sweep")
    scheduled(store, *({"x": str(i)} for i in range(5)))
    assert len(work(store, "sweep", ["true"], Rules(max_runs=2))) == 2
    assert (
        len(work(store, "sweep", program("import time; time.sleep(0.3)"), Rules(max_time_s=0.2)))
        == 1
    )
    assert len(work(store, "sweep", ["true"])) == 2


def test_runs_that_are_to_be_first_are_taken_before_those_of_a_better_rank() -> None:
    store = InMemoryStore("sweep")
    *_, last = scheduled(store, *({"x": str(i)} for i in range(3)))
    rules = Rules(max_runs=1, first=frozenset([last]))
    assert [run.run_id for run in work(store, "sweep", ["true"], rules)] == [last]


def test_a_worker_that_polls_trains_what_is_scheduled_while_it_waits() -> None:
    store = InMemoryStore("sweep")
    later = threading.Timer(0.5, scheduled, [store, {"x": "2"}])
    later.start()
    done = work(store, "sweep", ["true"], Rules(poll_s=0.1, max_runs=1))
    later.join()
    assert [e.outcome for e in done] == [Outcome.FINISHED]
    assert work(store, "sweep", ["true"], Rules(poll_s=0.1, max_time_s=0.3)) == []


@pytest.fixture
def interrupts() -> Iterator[None]:
    """As in a terminal: where pytest is in a `&`, the shell has it ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_hands_back_what_is_in_training() -> None:
    store = InMemoryStore("sweep")
    first = scheduled(store, {"x": "1"}, {"x": "2"})
    begun: list[str] = []

    def progress(words: str) -> None:
        begun.append(words)
        if len(begun) == 2:
            threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        work(store, "sweep", SLEEPS, Rules(concurrency=2), progress=progress)
    assert [store.get_run(run_id).status for run_id in first] == ["KILLED", "KILLED"]
    waiting = queue.waiting(Ledger.of(store, store.experiment_id("sweep")))
    assert [(run.params["x"], run.attempt) for run in waiting] == [("1", 2), ("2", 2)]
    assert not {run.run_id for run in waiting} & set(first)


def test_an_interrupt_between_claim_and_training_hands_back_too() -> None:
    store = InMemoryStore("sweep")
    (first,) = scheduled(store, {"x": "1"})

    def progress(words: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(store, "sweep", SLEEPS, progress=progress)
    assert store.get_run(first).status == "KILLED"
    (run,) = queue.waiting(Ledger.of(store, store.experiment_id("sweep")))
    assert run.attempt == 2


def test_a_run_that_a_person_kills_is_stopped_and_not_tried_again() -> None:
    store = InMemoryStore("sweep")
    (run_id,) = scheduled(store, {"x": "1"})
    threading.Timer(0.5, lambda: store.set_status(run_id, "KILLED")).start()
    (done,) = work(store, "sweep", SLEEPS, Rules(lease_s=2.0))
    assert done.outcome is Outcome.KILLED
    assert store.get_run(run_id).status == "KILLED"
    assert queue.waiting(Ledger.of(store, store.experiment_id("sweep"))) == []


def test_a_run_that_is_asked_to_stop_is_ended_and_not_tried_again() -> None:
    store = InMemoryStore("sweep")
    (run_id,) = scheduled(store, {"x": "1"})
    ask = {names.STOP: "will not beat 0.1"}
    threading.Timer(0.5, lambda: store.log_batch(run_id, tags=ask)).start()
    (done,) = work(store, "sweep", SLEEPS, Rules(lease_s=2.0))
    assert done.outcome is Outcome.STOPPED
    record = store.get_run(run_id)
    assert (record.status, record.params[names.ENDED].split()[0]) == ("KILLED", "KILLED")
    assert queue.waiting(Ledger.of(store, store.experiment_id("sweep"))) == []


@pytest.mark.parametrize("kept", [{"mlflow_meta.keep": "true"}, {"mlflow_meta.decision": "Keep"}])
def test_a_run_that_a_person_keeps_is_not_stopped(kept: dict[str, str]) -> None:
    store = InMemoryStore("sweep")
    (run_id,) = scheduled(store, {"x": "1"})
    store.log_batch(run_id, tags={names.STOP: "will not beat 0.1", **kept})
    (done,) = work(store, "sweep", program("import time; time.sleep(1)"), Rules(lease_s=2.0))
    assert done.outcome is Outcome.FINISHED


def test_the_run_of_a_dead_worker_is_tried_again_and_given_up_after_three_deaths() -> None:
    store = InMemoryStore("sweep")
    scheduled(store, {"x": "1"})
    ledger = Ledger.of(store, store.experiment_id("sweep"))
    attempts = []
    for _ in range(5):
        for run in queue.waiting(ledger):
            attempts.append(run.attempt)
            # And this worker is never heard of again.
            assert queue.claim(store, run.run_id, tags={}, lease_s=0.5)
        work(store, "sweep", ["true"], Rules(max_runs=1, lease_s=0.5, require_approval=True))
    assert attempts == [1, 2, 3]
    records = store.search_runs(ledger.experiment_id, rank=None)
    assert [r.status for r in records] == ["KILLED"] * 3
    assert [r.params[names.ENDED].split()[0] for r in records] == ["reaped", "reaped", "given-up"]


def test_a_forged_run_is_never_executed() -> None:
    store = InMemoryStore("sweep")
    scheduled(store, {"x": "1"})
    ledger = Ledger.of(store, store.experiment_id("sweep"))
    (true_run,) = queue.waiting(ledger)
    forged = store.create_run(ledger.experiment_id, "forged", dict(true_run.tags))
    store.log_batch(forged, params={"x": "rm"})
    store.set_status(forged, "SCHEDULED")
    done = work(store, "sweep", ["true"])
    assert [e.run_id for e in done] == [true_run.run_id]


def test_what_a_person_decides_is_honoured_before_a_claim() -> None:
    store = InMemoryStore("sweep")
    yes, no, _ = scheduled(store, {"x": "1"}, {"x": "2"}, {"x": "3"})
    store.log_batch(yes, tags={"mlflow_meta.decision": "Approve"})
    store.log_batch(no, tags={"mlflow_meta.decision": "reject: x<2"})
    done = work(store, "sweep", ["true"], Rules(require_approval=True))
    assert [e.run_id for e in done] == [yes]
    assert len(work(store, "sweep", ["true"])) == 1
    assert store.get_run(no).status == "KILLED"


@pytest.mark.slow
def test_a_project_of_mlflow_runs_in_the_suggested_run(
    sqlite_uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    client.create_experiment("sweep", artifact_location=(tmp_path / "artifacts").as_uri())
    store = MlflowStore(sqlite_uri)
    (tmp_path / "MLproject").write_text(
        "name: p\nentry_points:\n  main:\n    parameters:\n      lr: float\n"
        f'    command: "{sys.executable} train.py {{lr}}"\n'
    )
    (tmp_path / "train.py").write_text(
        "import sys, mlflow\nwith mlflow.start_run():\n"
        "    mlflow.log_metric('val_loss', 2 * float(sys.argv[1]))\n"
    )
    (run_id,) = scheduled(store, {"lr": "0.25"})
    (done,) = work(store, "sweep", project_command(str(tmp_path)), output=2)
    run = client.get_run(run_id)
    assert (done.exit_code, run.info.status) == (0, "FINISHED")
    assert run.data.metrics["val_loss"] == 0.5
    assert len(client.search_runs(run.info.experiment_id)) == 1


@pytest.fixture
def trained(store: MlflowStore) -> MlflowStore:
    """With a champion for `sweep-a`."""
    harvest(store)
    train(store, metric="val_loss", kinds=["lightgbm"])
    return store


def of_kind(client: MlflowClient, experiment: str, tag: str) -> list[str]:
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    found = client.search_runs([experiment_id], f"tags.`{tag}` != ''", max_results=1000)
    return sorted(run.info.run_id for run in found)


@pytest.mark.slow
def test_who_asks_twice_gets_one_set_and_may_ask_for_more(
    trained: MlflowStore, client: MlflowClient
) -> None:
    first = suggest(trained, "sweep-a", n=3)
    again = suggest(trained, "sweep-a", n=3)
    assert list(again.run_ids) == list(first.run_ids)
    assert (first.is_repeated, again.is_repeated) == (False, True)
    assert again.items == first.items
    assert of_kind(client, "sweep-a", names.RANK) == sorted(first.run_ids)
    cli = ["suggest", "-e", "sweep-a", "-n", "3", "--tracking-uri", trained.uri]
    told = CliRunner().invoke(main, cli)
    assert "are in sweep-a already, and nothing was learned since" in told.stdout
    more = CliRunner().invoke(main, [*cli, "--more", "--json"])
    assert more.exit_code == 0, more.output
    others = [s["run_id"] for s in json.loads(more.stdout)["suggestions"]]
    assert not set(others) & set(first.run_ids)
    assert of_kind(client, "sweep-a", names.RANK) == sorted([*first.run_ids, *others])


@pytest.mark.slow
def test_a_search_is_repeated_bit_for_bit_from_any_of_its_runs(
    trained: MlflowStore, client: MlflowClient
) -> None:
    first = suggest(trained, "sweep-a", n=4)
    suggest(trained, "sweep-a", n=2)
    harvest(trained)
    train(trained, metric="val_loss", kinds=["linear"])
    for run_id in (first.run_ids[2], first.run_id):
        again = suggest_again(trained, run_id)
        assert again.items == first.items
        assert list(again.run_ids) == list(first.run_ids)
    cli = ["suggest", "-e", "sweep-a", "--tracking-uri", trained.uri, "--from"]
    done = CliRunner().invoke(main, [*cli, first.run_ids[0]])
    assert "finds the same, bit for bit" in done.stdout
    assert "no more than" not in done.stderr
    beside = CliRunner().invoke(main, [*cli, first.run_ids[0], "-n", "2"])
    assert (beside.exit_code, "with all that was asked then" in beside.stderr) == (2, True)
    no_plan: Result = CliRunner().invoke(
        main, [*cli, of_kind(client, "mlflow-meta", names.KIND)[0]]
    )
    assert no_plan.exit_code == 1


@pytest.mark.slow
def test_reasons_of_people_hold_in_the_next_search(
    trained: MlflowStore, client: MlflowClient
) -> None:
    first = suggest(trained, "sweep-a", n=3)
    worst = max(float(item.config["lr"]) for item in first.items)
    bad = next(
        r for r, i in zip(first.run_ids, first.items, strict=True) if i.config["lr"] == worst
    )
    client.set_tag(bad, "mlflow_meta.decision", "reject")
    client.set_tag(bad, "mlflow_meta.reason", f"lr<{worst / 2}")
    second = suggest(trained, "sweep-a", n=3)
    assert not second.is_repeated
    assert all(float(item.config["lr"]) < worst / 2 for item in second.items)
    assert client.get_run(bad).info.status == "KILLED"
    understood = client.get_run(bad).data.tags["mlflow_meta.understood"]
    assert understood == f"from now on lr<{worst / 2}"
    assert any(f"and its lr = {worst:g} is not: from now on lr<" in r for r in second.remarks)
    client.set_tag(second.run_ids[0], "mlflow_meta.decision", "reject: ugly")
    client.set_tag(second.run_ids[1], "mlflow_meta.decision", "rejct")
    third = suggest(trained, "sweep-a", n=3)
    assert second.items[0].config not in [item.config for item in third.items]
    assert any("ugly" in remark for remark in third.remarks)
    assert second.run_ids[1] in third.remarks[0]
    assert "says 'rejct', which decides nothing: write approve or reject" in third.remarks[0]
