"""A dead-man's switch: starts a training, and kills all of it when its worker falls silent.

A script of its own, `python -I -S launcher.py LIMIT_S GRACE_S SINCE WORDS BYTES`, on the standard
library alone: it starts in milliseconds, and no bug of ours comes near it. The worker starts it in
a session of its own, and they talk over pipes:

* stdin   first BYTES bytes: the program's arguments, which are WORDS, then its environment, with a
          NUL between any two; then lines: when a successful heartbeat was sent, or `stop`
* stdout  `started`, or `failed <errno>`; at the end, `ended <why> <exit code>`
* stderr  the training's log

The program is killed when LIMIT_S have passed since the last successful heartbeat was sent (SINCE
stands for one at the start), at `stop`, and when stdin ends, as it does with the worker. However it
ends, nothing that it started outlives it: SIGTERM to all, GRACE_S, SIGKILL; where its worker is
gone or silent, SIGKILL at once.

Linux only: descendants are found wherever they have gone to, and the program dies with a launcher
that is killed. Elsewhere those who left the process group are missed.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

# Both go on while the machine is suspended: macOS's monotonic clock does, Linux's does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TICK_S = 1.0  # the longest sleep: poll(2) counts on a clock that stops with the machine
_FIRST_PAUSE_S = 0.01  # between two rounds of SIGKILL; it doubles up to `_TICK_S`
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
_FIXED = {signal.SIGKILL, signal.SIGSTOP}  # what no process can ignore


def clock() -> float:
    """Seconds on the clock that heartbeats and limits are in: one for all of a machine."""
    return time.clock_gettime(_CLOCK)


def main() -> None:
    """Be the launcher of the program that stdin names."""
    assert os.getpgrp() == os.getpid(), "this would kill the group of whoever started it"
    limit_s, grace_s, since = (float(word) for word in sys.argv[1:4])
    n_words, n_bytes = (int(word) for word in sys.argv[4:6])
    for number in signal.valid_signals() - _FIXED - {signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the worker's thread may have blocked some
    job = _read(n_bytes)
    if len(job) < n_bytes:
        return  # the worker is gone already
    if clock() >= since + limit_s:  # the worker has slept: the run may be another's already
        _tell(f"ended SILENT {-signal.SIGKILL}")
        return
    words = job.split(b"\0")
    tree = Tree()
    try:
        tree.start(words[:n_words], dict(word.split(b"=", 1) for word in words[n_words:]))
    except OSError as error:
        _tell(f"failed {error.errno}")
        return
    try:
        _tell("started")
        is_gentle = False
        why, is_gentle = _watch(tree, limit_s, since)
    finally:
        tree.end(grace_s if is_gentle else None)
    _tell(f"ended {why} {tree.exit_code}")
    if not tree.complete:
        os.killpg(0, signal.SIGKILL)  # whoever is left in the group, and ourselves


class Tree:
    """A program and all that descends from it.

    Attributes:
        complete: Whether descendants can't leave it, as orphans become children of ours (Linux).
        exit_code: The program's, negative for a signal; None while it runs.
    """

    def __init__(self) -> None:
        self._prctl = _prctl()
        # Not without /proc: we would wait for orphans that we can't find.
        self.complete = _has_proc() and self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.exit_code: int | None = None
        self._program = 0
        self._wakes, wake = os.pipe()  # a byte for each SIGCHLD, so that `sleep` ends
        os.set_blocking(self._wakes, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def start(self, argv: list[bytes], env: dict[bytes, bytes]) -> None:
        """Start the program.

        Raises:
            OSError: What execve(2) says of it, or fork(2).
        """
        launcher = os.getpid()
        failure, tell = os.pipe()
        self._program = os.fork()
        if self._program == 0:
            try:
                self._become(argv, env, launcher)
            except OSError as error:
                os.write(tell, f"{error.errno}".encode())
            finally:
                os._exit(127)
        os.close(tell)  # exec closes the program's
        with open(failure, "rb") as pipe:
            if errno := pipe.read():
                os.waitpid(self._program, 0)
                raise OSError(int(errno), os.strerror(int(errno)))

    def _become(self, argv: list[bytes], env: dict[bytes, bytes], launcher: int) -> None:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        for number in signal.valid_signals() - _FIXED:  # SIGPIPE and SIGXFSZ are Python's doing
            signal.signal(number, signal.SIG_DFL)
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == launcher:  # else it died before prctl could tell us
            os.execvpe(argv[0], argv, env)

    def sleep(self, longest_s: float, *also: int) -> None:
        """Until a child has died, there is something to read in `also`, or time is up."""
        poll = select.poll()
        for pipe in (self._wakes, *also):
            poll.register(pipe, select.POLLIN)
        poll.poll(max(longest_s, 0.0) * 1000)

    def reap(self) -> bool:
        """Take the exit codes of the dead; whether anyone is left."""
        while _read_now(self._wakes):
            pass
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._program:
                    self.exit_code = os.waitstatus_to_exitcode(found[1])
        except ChildProcessError:
            return False
        return True

    def end(self, grace_s: float | None) -> None:
        """Return when the program and its descendants are dead: SIGTERM, grace, SIGKILL.

        With no grace it is SIGKILL at once.
        """
        if grace_s is not None and self.reap():
            self._terminate()
        deadline = clock() + (grace_s or 0.0)
        while self.reap() and (left_s := deadline - clock()) > 0:
            self.sleep(min(left_s, _TICK_S))
        pause_s = _FIRST_PAUSE_S
        while self.reap():  # again and again: they may have forked meanwhile
            victims = set(_descendants())
            if self.exit_code is None:
                victims.add(self._program)
            for pid in victims:
                _signal(pid, signal.SIGKILL)
            self.sleep(pause_s)
            pause_s = min(2 * pause_s, _TICK_S)

    def _terminate(self) -> None:
        group = os.getpgrp()
        strayed = [pid for pid, its_group in _descendants().items() if its_group != group]
        for number in (signal.SIGTERM, signal.SIGCONT):  # who is stopped can't end by itself
            os.killpg(group, number)
            for pid in strayed:
                _signal(pid, number)


def _watch(tree: Tree, limit_s: float, sent_at: float) -> tuple[str, bool]:
    """Return when the program is to end or has ended: why, and whether gently.

    A program that ends gently may give its run a status. That is wanted where its worker is there
    to say how the run has ended; where it is not, a run that was cut short would look whole.
    """
    os.set_blocking(0, False)
    text: bytes = b""
    while True:
        tree.reap()
        if tree.exit_code is not None:
            return "EXITED", True
        while (read := _read_now(0)) is not None:
            *lines, text = (text + read).split(b"\n")
            if not read or b"stop" in lines:
                return "STOPPED", b"stop" in lines
            # None is from the future: a caller with another clock must not switch the limit off.
            sent_at = max([sent_at, *(min(clock(), float(line)) for line in lines)])
        left_s = sent_at + limit_s - clock()
        if left_s <= 0:
            return "SILENT", False
        tree.sleep(min(left_s, _TICK_S), 0)


def _descendants() -> dict[int, int]:
    """The processes that descend from this one and their process groups; none without /proc."""
    parents, groups = {}, {}
    for pid, parent, group in _processes():
        parents[pid], groups[pid] = parent, group
    found, generation = {}, {os.getpid()}
    while generation:
        generation = {pid for pid, parent in parents.items() if parent in generation}
        found.update({pid: groups[pid] for pid in generation})
    return found


def _has_proc() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())  # another namespace's has other ids
    except OSError:
        return False


def _processes() -> Iterator[tuple[int, int, int]]:
    """Id, parent and group of every process, from /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    stat = file.read()
            except OSError:
                continue  # it is gone
            # pid (name) state parent group ...; a name may have brackets and blanks itself
            _, parent, group = stat.rpartition(b")")[2].split()[:3]
            yield int(name), int(parent), int(group)


def _prctl() -> Callable[[int, int], bool]:
    """prctl(2) with one number: whether it could be done. Never, but on Linux."""
    if sys.platform != "linux":
        return lambda option, value: False
    try:
        import ctypes

        function = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda option, value: False
    return lambda option, value: function(option, ctypes.c_ulong(value)) == 0


def _signal(pid: int, number: signal.Signals) -> None:
    # It is dead, or another user's by setuid: then we wait until it ends by itself.
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _read(n_bytes: int) -> bytes:
    """That many bytes of stdin; fewer if it ends."""
    found = b""
    while len(found) < n_bytes and (read := os.read(0, n_bytes - len(found))):
        found += read
    return found


def _read_now(pipe: int) -> bytes | None:
    """What there is to read: nothing at the pipe's end, None if nothing has come yet."""
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return None


def _tell(line: str) -> None:
    with suppress(BrokenPipeError):  # the worker is gone, which may be why we end
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main()
