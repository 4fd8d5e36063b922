"""What any `Store` must do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mlflow_meta.errors import MetaError, NothingToLearn
from mlflow_meta.store import names
from mlflow_meta.store.contract import Store

N_RACERS = 8


def check_store(make: Callable[[], Store], experiment_name: str) -> None:
    """Raise AssertionError at the first promise of `Store` that is broken.

    Args:
        make: Opens the store; what it opens twice is the same one.
        experiment_name: An experiment of it, in which runs are made.
    """
    store = make()
    experiment_id = store.experiment_id(experiment_name)
    _check_experiments(store, experiment_id)
    _check_runs(store, experiment_id)
    _check_batches(store, experiment_id)
    _check_search(store, experiment_id)
    _check_files(store, experiment_id)
    _check_races(make, experiment_id)


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except MetaError:
        return True
    return False


def _check_experiments(store: Store, experiment_id: str) -> None:
    own = store.own_experiment_id()
    assert own == store.own_experiment_id() != experiment_id, "our own experiment is one, and ours"
    try:
        store.experiment_id("there is no such experiment")
    except NothingToLearn:
        pass
    else:
        raise AssertionError("an experiment that does not exist raises NothingToLearn")
    name = "check-store-once"
    first = store.experiment_once(name, {"tag": "first"})
    second = store.experiment_once(name, {"tag": "second"})
    assert first["tag"] == second["tag"], "the tags that an experiment was made with stand"
    assert store.experiment_once(name, {})["tag"] == first["tag"], "and can be asked for"
    nothing = store.experiment_once("check-store-nothing", {})
    assert "tag" not in nothing, "asking makes no experiment"


def _check_runs(store: Store, experiment_id: str) -> None:
    tags = {names.KEY: "a1"}
    run_id = store.create_run(experiment_id, "one", tags, start_ms=1_700_000_000_000)
    made = store.get_run(run_id)
    assert (made.name, made.status, made.start_ms) == ("one", "RUNNING", 1_700_000_000_000)
    assert made.tags[names.KEY] == "a1" and made.experiment_id == experiment_id
    for status in ("SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"):
        store.set_status(run_id, status)
        store.set_status(run_id, status)
        assert store.get_run(run_id).status == status, f"a run becomes {status}, also twice"
    assert store.log_once(run_id, "owner", "ann") == "ann"
    assert store.log_once(run_id, "owner", "ann") == "ann", "the same again is no other"
    assert store.log_once(run_id, "owner", "bob") == "ann", "what was set first stands"
    assert store.get_run(run_id).params["owner"] == "ann"
    assert _refuses(lambda: store.get_run("0" * 32)), "a run that does not exist is refused"
    assert _refuses(lambda: store.log_once("0" * 32, "owner", "ann"))


def _check_batches(store: Store, experiment_id: str) -> None:
    run_id = store.create_run(experiment_id, "batch", {})
    params = {f"p{i}": i / 7 for i in range(250)}
    odd = {"text": "a = 'b' \"c\" \\ ; $(d) ü 語", "empty-ish": " ", "float": 1e-05}
    for _ in range(2):
        store.log_batch(
            run_id, params={**params, **odd}, metrics={"m": 0.25}, tags={"t": "u"}, at_ms=1000
        )
    found = store.get_run(run_id)
    assert dict(found.params) == {k: str(v) for k, v in {**params, **odd}.items()}, "byte for byte"
    assert (found.metrics["m"], found.tags["t"]) == (0.25, "u")
    assert _refuses(lambda: store.log_batch(run_id, params={"p1": "other"})), "params stand"
    store.log_batch(run_id, metrics={"m": 0.5}, tags={"t": "v"})
    found = store.get_run(run_id)
    assert (found.metrics["m"], found.tags["t"]) == (0.5, "v"), "metrics and tags change"


def _check_search(store: Store, experiment_id: str) -> None:
    key, other = "c0ffee", "decade"
    ids = [
        store.create_run(experiment_id, f"s{i}", {names.KEY: value}, start_ms=1000 * (9 - i))
        for i, value in enumerate((key, key, other))
    ]
    store.create_run(store.own_experiment_id(), "elsewhere", {names.KEY: key})
    store.set_status(ids[1], "SCHEDULED")

    def found(**asked: str | None) -> list[str]:
        records = store.search_runs(experiment_id, **asked)  # type: ignore[arg-type]
        return [record.run_id for record in records if record.run_id in ids]

    assert found(key=key) == [ids[1], ids[0]], "by a tag, of this experiment, the oldest first"
    assert found(key=key, status="SCHEDULED") == [ids[1]], "by status as well"
    assert set(found(key=None)) == set(ids), "None is any value"
    assert found(claim=None) == [], "a tag that none has"


def _check_files(store: Store, experiment_id: str) -> None:
    run_id = store.create_run(experiment_id, "files", {})
    content = bytes(range(256)) * 10
    store.log_files(run_id, {"a.bin": content, "b.txt": b""})
    store.log_files(run_id, {"a.bin": content}, "folder")
    assert store.file(run_id, "a.bin") == store.file(run_id, "folder/a.bin") == content
    assert store.file(run_id, "b.txt") == b""
    assert _refuses(lambda: store.file(run_id, "c.txt")), "a file that does not exist is refused"


def _check_races(make: Callable[[], Store], experiment_id: str) -> None:
    """Of many that set the same param, or make the same experiment, at once, one wins."""
    run_id = make().create_run(experiment_id, "race", {})
    stores = [make() for _ in range(N_RACERS)]

    def race(i: int) -> tuple[str, str]:
        stands = stores[i].log_once(run_id, "winner", str(i))
        return stands, stores[i].experiment_once("check-store-race", {"tag": str(i)})["tag"]

    with ThreadPoolExecutor(N_RACERS) as pool:
        told = set(pool.map(race, range(N_RACERS)))
    assert len(told) == 1, f"all are told the same winner, but were told {sorted(told)}"
    assert make().get_run(run_id).params["winner"] == next(iter(told))[0]
