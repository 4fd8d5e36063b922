"""Tests for execution/: real programs under real launchers, and workers that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from mlflow_meta.errors import BadCommand
from mlflow_meta.execution import Ended, Trainer, Why, clock
from mlflow_meta.execution import trainer as trainer_module

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into Linux's /proc")

PATIENCE_S = 10.0  # for what takes milliseconds, on a machine that is busy
FOREVER_S = 60.0  # longer than any test: what ends before was ended

# Three processes: the program, a child, and a daemon that left its session and ignores SIGTERM.
TREE = """
sh -c 'echo $$ >> "$PIDS"; exec sleep 60' &
(setsid sh -c 'trap "" TERM; echo $$ >> "$PIDS"; exec sleep 60' &)
echo $$ >> "$PIDS"
while test $(wc -l < "$PIDS") -lt 3; do sleep 0.01; done
"""
STAY = "exec sleep 60"

WORKER = """
import os, sys
from pathlib import Path
from mlflow_meta.execution import Trainer, clock

log, limit_s, *argv = sys.argv[1:]
trainer = Trainer.start(
    argv, env=dict(os.environ), log=Path(log), limit_s=float(limit_s), grace_s=0.1
)
while (ended := trainer.wait(0.05)) is None:
    trainer.beat(clock())
print(ended.why.name)
"""

Start = Callable[..., Trainer]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "training.log"


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    """Where programs write their process ids, one a line; `PIDS` in their environment."""
    path = tmp_path / "pids"
    path.touch()
    return path


@pytest.fixture
def start(log: Path, pids: Path) -> Iterator[Start]:
    """Starts a program that is gone when the test is."""
    started: list[Trainer] = []

    def start(*argv: str, limit_s: float = FOREVER_S, grace_s: float = 0.1) -> Trainer:
        env = {**os.environ, "PIDS": str(pids)}
        started.append(Trainer.start(argv, env=env, log=log, limit_s=limit_s, grace_s=grace_s))
        return started[-1]

    yield start
    for trainer in started:
        trainer.stop()
        assert trainer.wait(PATIENCE_S)


@pytest.fixture
def worker(log: Path, pids: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a worker of its own process, which tells heartbeats until its program ends."""
    started: list[subprocess.Popen[str]] = []

    def worker(*argv: str, limit_s: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(log), str(limit_s), *argv]
        env = {**os.environ, "PIDS": str(pids)}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield worker
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process can still do something: a zombie can't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def three(pids: Path) -> list[int]:
    """The ids of TREE's processes, when all have written theirs."""
    until(lambda: pids.read_text().count("\n") == 3)
    found = [int(line) for line in pids.read_text().split()]
    assert all(map(alive, found))
    return found


def written(pids: Path) -> int:
    """The one id that a program has written."""
    until(lambda: pids.read_text().endswith("\n"))
    return int(pids.read_text())


def end(trainer: Trainer) -> Ended:
    ended = trainer.wait(PATIENCE_S)
    assert ended is not None
    return ended


# What a program does


@pytest.mark.parametrize("exit_code", [0, 1, 75, 127, 255])
def test_the_exit_code_is_the_programs_own(start: Start, exit_code: int) -> None:
    trainer = start("sh", "-c", f"exit {exit_code}")
    assert end(trainer) == Ended(exit_code=exit_code, why=Why.EXITED)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGSEGV"])
def test_a_program_that_a_signal_killed_ended_by_itself_with_minus_its_number(
    start: Start, name: str
) -> None:
    number = signal.Signals[name]
    assert end(start("sh", "-c", f"kill -{number} $$")) == Ended(exit_code=-number, why=Why.EXITED)


def test_both_outputs_are_appended_to_the_log_in_their_order(start: Start, log: Path) -> None:
    log.write_text("before\n")
    end(start("sh", "-c", "echo out; echo err >&2; echo out again"))
    assert log.read_text() == "before\nout\nerr\nout again\n"


def test_the_standard_input_is_empty(start: Start) -> None:
    assert end(start("cat")).exit_code == 0


def test_the_environment_is_what_was_given_and_no_more(log: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "A": "two\nlines = x",
        "EMPTY": "",
        "B": os.fsdecode(b"\xff"),
    }
    end(Trainer.start(["env", "-0"], env=env, log=log, limit_s=FOREVER_S, grace_s=0))
    expected = [os.fsencode(f"{name}={value}") for name, value in env.items()]
    assert sorted(log.read_bytes().split(b"\0")[:-1]) == sorted(expected)


@linux_only
def test_the_program_has_no_signal_ignored_or_blocked(start: Start, log: Path) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        trainer = start("cat", "/proc/self/status")  # sh would unblock them itself
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert end(trainer).exit_code == 0
    fields = dict(line.split(":\t", 1) for line in log.read_text().splitlines())
    ours = sum(1 << (number - 1) for number in signal.valid_signals())  # not those of the C library
    assert [int(fields[name], 16) & ours for name in ("SigIgn", "SigBlk")] == [0, 0]


@linux_only
def test_the_program_has_no_file_of_ours_open(start: Start, log: Path) -> None:
    with log.open("ab") as ours:
        os.set_inheritable(ours.fileno(), True)
        end(start("sh", "-c", "ls /proc/$$/fd"))
    assert log.read_text().split() == ["0", "1", "2"]


# What is passed to it


def hostile() -> list[str]:
    """Forty values that a shell, a decoder or a line-based protocol would spoil."""
    rng = random.Random(0)
    texts = [
        "", " ", "\n", "\n\n", "\t", "\r\n", "'", '"', "\\", "`id`", "$(touch owned)", "${PATH}",
        "$$", "; exit 9", "&& false", "| cat", "> owned", "*", "~", "?", "--", "-", "-rf", "=",
        "a=b", "%s%n", "{lr}", "\x1b[31m", "\x7f", "stop", "ended EXITED 0", "naïve", "漢字", "🙂",
        "\u202e",
    ]  # fmt: skip
    raw = [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", bytes(range(1, 256)), rng.randbytes(100_000)]
    return [*texts, *(os.fsdecode(value.replace(b"\0", b"\1")) for value in raw)]


def test_forty_hostile_values_arrive_byte_for_byte(start: Start, log: Path) -> None:
    values = hostile()
    assert len(values) == 40
    assert end(start("sh", "-c", r'printf "%s\0" "$@"', "sh", *values)).exit_code == 0
    assert log.read_bytes() == b"".join(os.fsencode(value) + b"\0" for value in values)
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-program"], "no-such-program can't be started: No such file or directory."),
        (["{tmp}/script"], "script can't be started: Permission denied."),
        (["{tmp}/headless"], "headless can't be started: Exec format error. Put the program that"),
        ([""], " can't be started: No such file or directory."),
        (["true", "x" * 1_000_000], "true can't be started: Argument list too long."),
        (["true", "--a=1\0", "b"], r"Argument 1 of the program, '--a=1\x00', can't be passed on"),
        (["true\0"], r"The program, 'true\x00', can't be passed on: a NUL byte ends it at char"),
        (["true", "a", "\ud800"], r"Argument 2 of the program, '\ud800', can't be passed on"),
    ],
)
def test_what_cannot_be_started_says_why(
    start: Start, tmp_path: Path, argv: list[str], words: str
) -> None:
    (tmp_path / "script").touch(mode=0o600)
    (tmp_path / "headless").touch(mode=0o700)
    (tmp_path / "headless").write_text("no interpreter is named here")
    with pytest.raises(BadCommand) as refused:
        start(*(word.replace("{tmp}", str(tmp_path)) for word in argv))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("argv", "limit_s", "grace_s", "env"),
    [
        ([], 1.0, 1.0, {}),
        (["true"], 0.0, 1.0, {}),
        (["true"], float("nan"), 1.0, {}),
        (["true"], float("inf"), 1.0, {}),
        (["true"], 1.0, -1.0, {}),
        (["true"], 1.0, 1.0, {"A=": "b"}),
        (["true"], 1.0, 1.0, {"A": "\0"}),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    log: Path, argv: list[str], limit_s: float, grace_s: float, env: dict[str, str]
) -> None:
    with pytest.raises(ValueError):
        Trainer.start(argv, env=env, log=log, limit_s=limit_s, grace_s=grace_s)
    assert not log.exists()


# What ends it


@linux_only
def test_without_a_heartbeat_in_time_the_whole_tree_dies(start: Start, pids: Path) -> None:
    began = clock()
    trainer = start("sh", "-c", TREE + STAY, limit_s=0.5)
    tree = three(pids)
    assert end(trainer) == Ended(exit_code=-signal.SIGKILL, why=Why.SILENT)
    assert clock() - began >= 0.5
    assert not any(map(alive, tree))


@pytest.mark.slow
def test_heartbeats_keep_a_program_alive_beyond_its_limit(start: Start) -> None:
    trainer = start("sleep", "60", limit_s=0.5)
    began = clock()
    while clock() - began < 1.2:
        assert trainer.wait(0.05) is None
        trainer.beat(clock())
    assert end(trainer).why is Why.SILENT


@pytest.mark.slow
def test_the_limit_counts_from_when_a_heartbeat_was_sent_not_told(start: Start) -> None:
    began = clock()
    trainer = start("sleep", "60", limit_s=1.0)
    assert trainer.wait(0.6) is None
    trainer.beat(began + 0.1)
    assert end(trainer).why is Why.SILENT
    assert 1.0 <= clock() - began < 1.5


@pytest.mark.parametrize("sent_at", [-1.0, 1e12, float("inf"), float("nan")])
def test_a_heartbeat_of_another_clock_does_not_switch_the_limit_off(
    start: Start, sent_at: float
) -> None:
    trainer = start("sleep", "60", limit_s=0.3)
    trainer.beat(sent_at)
    assert end(trainer).why is Why.SILENT


@linux_only
def test_the_tree_dies_with_a_worker_that_is_killed(
    worker: Callable[..., subprocess.Popen[str]], pids: Path
) -> None:
    process = worker("sh", "-c", TREE + STAY, limit_s=FOREVER_S)
    tree = three(pids)
    process.kill()
    until(lambda: not any(map(alive, tree)))


@linux_only
def test_a_program_whose_worker_is_killed_gets_no_time_to_say_how_its_run_has_ended(
    worker: Callable[..., subprocess.Popen[str]], pids: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    script = f"trap 'touch {said}; exit 0' TERM; echo $$ > $PIDS; while :; do sleep 0.01; done"
    process = worker("sh", "-c", script, limit_s=FOREVER_S)
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    process.kill()
    until(lambda: not alive(int(pids.read_text())))
    assert not said.exists()


@linux_only
@pytest.mark.slow
def test_the_tree_dies_when_its_worker_is_stopped_for_longer_than_the_limit(
    worker: Callable[..., subprocess.Popen[str]], pids: Path
) -> None:
    process = worker("sh", "-c", TREE + STAY, limit_s=0.5)
    tree = three(pids)
    time.sleep(0.7)
    assert all(map(alive, tree))  # while heartbeats come
    process.send_signal(signal.SIGSTOP)
    until(lambda: not any(map(alive, tree)))
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=PATIENCE_S)[0] == "SILENT\n"


@linux_only
def test_the_program_dies_with_a_launcher_that_is_killed(start: Start, pids: Path) -> None:
    script = "sleep 60 & echo $! $$ $PPID >> $PIDS; exec sleep 60"
    trainer = start("sh", "-c", script)
    until(lambda: pids.read_text().endswith("\n"))
    child, program, launcher = map(int, pids.read_text().split())
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not alive(program))  # before anybody waits for it
    trainer.beat(clock())
    trainer.stop()
    assert end(trainer) == Ended(exit_code=-signal.SIGKILL, why=Why.LOST)
    until(lambda: not alive(child))


@linux_only
def test_what_a_program_leaves_behind_dies_before_its_end_is_told(start: Start, pids: Path) -> None:
    trainer = start("sh", "-c", TREE + "exit 4")
    assert end(trainer) == Ended(exit_code=4, why=Why.EXITED)
    tree = [int(line) for line in pids.read_text().split()]
    assert len(tree) == 3
    assert not any(map(alive, tree))


def test_a_program_that_ignores_sigterm_is_killed_after_its_grace(start: Start, pids: Path) -> None:
    trainer = start("sh", "-c", "trap '' TERM; echo $$ > $PIDS; exec sleep 60", grace_s=0.3)
    written(pids)
    asked = clock()
    trainer.stop()
    assert end(trainer) == Ended(exit_code=-signal.SIGKILL, why=Why.STOPPED)
    assert clock() - asked >= 0.3


def test_a_program_that_ends_at_sigterm_has_its_own_exit_code_and_no_grace_to_wait(
    start: Start, pids: Path
) -> None:
    script = "trap 'echo saved; exit 7' TERM; echo $$ > $PIDS; while :; do sleep 0.02; done"
    trainer = start("sh", "-c", script, grace_s=FOREVER_S)
    written(pids)
    trainer.stop()
    trainer.stop()
    assert end(trainer) == Ended(exit_code=7, why=Why.STOPPED)


@linux_only
def test_a_daemon_too_is_asked_before_it_is_killed(start: Start, pids: Path, log: Path) -> None:
    save = "trap 'echo saved; exit' TERM; echo $$ > $PIDS; while :; do sleep 0.02; done"
    trainer = start(
        "sh", "-c", '(setsid sh -c "$1" &); exec sleep 60', "sh", save, grace_s=FOREVER_S
    )
    written(pids)
    trainer.stop()
    assert end(trainer) == Ended(exit_code=-signal.SIGTERM, why=Why.STOPPED)
    assert "saved\n" in log.read_text()


def test_a_program_that_is_stopped_can_still_end_at_sigterm(start: Start, pids: Path) -> None:
    trainer = start("sh", "-c", "echo $$ > $PIDS; exec sleep 60", grace_s=FOREVER_S)
    os.kill(written(pids), signal.SIGSTOP)
    trainer.stop()
    assert end(trainer) == Ended(exit_code=-signal.SIGTERM, why=Why.STOPPED)


# What changes nothing


def test_no_signal_to_the_launcher_but_sigkill_ends_it(start: Start, pids: Path) -> None:
    trainer = start("sh", "-c", "echo $PPID > $PIDS; exec sleep 60")
    launcher = written(pids)
    for name in ["INT", "TERM", "HUP", "QUIT", "USR1", "ALRM", "PIPE", "TSTP", "ABRT", "CHLD"]:
        os.kill(launcher, signal.Signals[f"SIG{name}"])
    assert trainer.wait(0.1) is None
    trainer.stop()
    assert end(trainer).why is Why.STOPPED


def test_a_program_may_signal_its_whole_group(start: Start) -> None:
    assert end(start("sh", "-c", "kill -USR1 0; sleep 60")).exit_code == -signal.SIGUSR1


def test_heartbeats_and_stops_after_the_end_are_harmless(start: Start) -> None:
    trainer = start("true")
    assert end(trainer).exit_code == 0
    trainer.beat(clock())
    trainer.stop()
    trainer.beat(clock())
    assert trainer.wait(0.0) == Ended(exit_code=0, why=Why.EXITED)


def test_a_heartbeat_never_waits_for_a_launcher_that_hangs(start: Start, pids: Path) -> None:
    trainer = start("sh", "-c", "echo $PPID > $PIDS; exec sleep 60")
    launcher = written(pids)
    os.kill(launcher, signal.SIGSTOP)
    for _ in range(10_000):  # the pipe takes some 4,000
        trainer.beat(clock())
    for _ in range(10):
        trainer.beat(0.0)  # shorter than "stop": there is no room for that any more
    trainer.stop()
    assert trainer.wait(0.05) is None
    os.kill(launcher, signal.SIGCONT)
    assert end(trainer).why is Why.STOPPED


@linux_only
def test_starts_in_parallel_share_no_pipe(start: Start, pids: Path) -> None:
    n = 8
    together = Barrier(n)

    def one(_: int) -> Trainer:
        together.wait()
        return start("sh", "-c", "echo $PPID >> $PIDS; exec sleep 60")

    with ThreadPoolExecutor(n) as pool:
        trainers = list(pool.map(one, range(n)))
    until(lambda: pids.read_text().count("\n") == n)
    pipes: list[str] = []
    for launcher in pids.read_text().split():
        links = {os.readlink(file) for file in Path(f"/proc/{launcher}/fd").iterdir()}
        pipes += [link for link in links if link.startswith("pipe:")]
    assert len(pipes) == len(set(pipes)) == 3 * n  # heartbeats, report, and its own for SIGCHLD
    for trainer in trainers:
        trainer.stop()
    assert [end(trainer).why for trainer in trainers] == [Why.STOPPED] * n


@pytest.mark.slow
def test_sixty_starts_leave_no_descriptor_open(start: Start, log: Path) -> None:
    def n_open() -> int:
        return len(os.listdir("/dev/fd"))

    end(start("true"))
    before = n_open()
    for i in range(60):
        if i % 10 == 0:
            with pytest.raises(BadCommand):
                start("no-such-program")
        else:
            end(start("true"))
    assert n_open() == before


# The clock, the cost, and other systems


@linux_only
def test_the_clock_is_the_one_that_counts_a_suspended_machines_time() -> None:
    assert clock() == pytest.approx(float(Path("/proc/uptime").read_text().split()[0]), abs=0.1)


def test_a_program_starts_within_a_tenth_of_a_second(start: Start) -> None:
    took_s = []
    for _ in range(5):
        began = time.perf_counter()
        trainer = start("true")
        took_s.append(time.perf_counter() - began)
        end(trainer)
    assert min(took_s) < 0.1


@pytest.mark.parametrize(
    ("script", "asked", "expected"),
    [
        ("exit 3", False, Ended(exit_code=3, why=Why.EXITED)),
        ("exec sleep 60", True, Ended(exit_code=-signal.SIGTERM, why=Why.STOPPED)),
        ("trap '' TERM; exec sleep 60", True, Ended(exit_code=-signal.SIGKILL, why=Why.STOPPED)),
    ],
)
def test_without_linux_the_process_group_still_dies(
    start: Start,
    pids: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    asked: bool,
    expected: Ended,
) -> None:
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text(
        "import os, runpy, sys\n"
        "def no_proc(*_): raise FileNotFoundError\n"
        "sys.platform, os.listdir, os.readlink = 'darwin', no_proc, no_proc\n"
        f"runpy.run_path({str(trainer_module._LAUNCHER)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(trainer_module, "_LAUNCHER", elsewhere)
    child = "sh -c 'trap \"\" TERM; echo $$ > $PIDS; exec sleep 60' &\n"
    ready = "while ! test -s $PIDS; do sleep 0.01; done\n"
    trainer = start("sh", "-c", child + ready + script)
    left_behind = written(pids)
    if asked:
        time.sleep(0.05)  # until its trap is set
        trainer.stop()
    assert end(trainer) == expected
    until(lambda: not alive(left_behind))


def test_a_program_is_not_started_after_the_limit(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    trainer = Trainer.start(
        ["touch", str(marker)],
        env=os.environ,
        log=tmp_path / "log",
        limit_s=5.0,
        grace_s=0.1,
        since=clock() - 6.0,
    )
    ended = trainer.wait(20.0)
    assert ended is not None
    assert ended.why is Why.SILENT
    assert not marker.exists()
