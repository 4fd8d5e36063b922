"""Tests for plugin.py: each fact against a second source, and machines that refuse."""

import json
import os
import re
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_meta import plugin
from mlflow_meta.plugin import PREFIX, HardwareRunContext, hardware_tags

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's /proc")


@pytest.fixture(autouse=True)
def _forget_the_machine() -> Iterator[None]:
    hardware_tags.cache_clear()
    yield
    hardware_tags.cache_clear()


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the machine NVIDIA GPUs of these models, as the driver shows them in /proc."""

    def install(*models: str) -> None:
        for i, model in enumerate(models):
            gpu = tmp_path / f"0000:{i:02x}:00.0"
            gpu.mkdir()
            (gpu / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 24\n")
        monkeypatch.setattr(plugin, "NVIDIA_GPUS", tmp_path)

    return install


def facts() -> dict[str, str]:
    return {name.removeprefix(PREFIX): value for name, value in HardwareRunContext().tags().items()}


def run_python(code: str, **env: str) -> str:
    """What a fresh interpreter prints, with every warning from us or about us an error."""
    command = [sys.executable, "-W", "error:Failure attempting to register:UserWarning", "-c", code]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@linux_only
def test_memory_is_what_meminfo_says() -> None:
    (kib,) = re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert facts()["memory_gb"] == f"{int(kib) * 1024 / 1e9:.1f}"


@linux_only
def test_cores_are_those_this_process_may_use() -> None:
    (ranges,) = re.findall(r"Cpus_allowed_list:\s+(\S+)", Path("/proc/self/status").read_text())
    ends = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    assert facts()["cpu_cores"] == str(sum(end[-1] - end[0] + 1 for end in ends))


@linux_only
def test_cpu_model_is_one_that_cpuinfo_names() -> None:
    named = re.findall(r"^model name\s*: (.*\S)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert facts().get("cpu_model") in (named or [None])


def test_machine_is_the_kernels_word_for_it() -> None:
    assert facts()["machine"] == os.uname().machine


@linux_only
def test_without_a_gpu_there_is_no_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "NVIDIA_GPUS", tmp_path / "absent")
    assert facts()["accelerator"] == "false"
    assert not {"gpu_model", "gpu_count"} & facts().keys()


@linux_only
def test_gpus_are_counted_and_each_model_named_once(gpus: Callable[..., None]) -> None:
    gpus("NVIDIA H100", "NVIDIA A100", "NVIDIA H100")
    assert facts()["accelerator"] == "true"
    assert facts()["gpu_count"] == "3"
    assert facts()["gpu_model"] == "NVIDIA A100, NVIDIA H100"


@linux_only
def test_a_gpu_whose_model_cannot_be_read_still_counts(
    gpus: Callable[..., None], tmp_path: Path
) -> None:
    gpus("NVIDIA A100")
    next(tmp_path.glob("*/information")).write_bytes(b"\xff\xfe")
    assert (facts()["accelerator"], facts()["gpu_count"]) == ("true", "1")
    assert "gpu_model" not in facts()


def test_facts_that_cannot_be_read_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError("not for you")

    monkeypatch.setattr(plugin, "CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(os, "sysconf", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert facts().keys() == {"machine"}


def test_where_the_kernel_does_not_tell_the_affinity_all_cores_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert facts()["cpu_cores"] == str(os.cpu_count())


def test_the_machine_is_read_once_and_then_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = HardwareRunContext().tags()
    monkeypatch.setattr(plugin, "_FACTS", {})
    assert HardwareRunContext().tags() == first
    assert min(timeit.repeat(HardwareRunContext().tags, number=1)) < 0.005  # seconds


def test_changing_the_tags_of_one_run_does_not_change_the_next() -> None:
    HardwareRunContext().tags().clear()
    assert facts()


@pytest.mark.parametrize(("value", "on"), [(None, True), ("", True), ("1", True), ("0", False)])
def test_the_environment_can_switch_it_off(
    value: str | None, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("MLFLOW_META_HARDWARE", raising=False)
    else:
        monkeypatch.setenv("MLFLOW_META_HARDWARE", value)
    assert HardwareRunContext().in_context() is on


def test_it_answers_all_that_mlflow_asks_of_a_provider() -> None:
    from mlflow.tracking.context.abstract_context import RunContextProvider

    asked = {name for name in vars(RunContextProvider) if not name.startswith("_")}
    assert asked == {"in_context", "tags"} <= vars(HardwareRunContext).keys()


TAGS_OF_A_NEW_RUN = """
import json, mlflow
with mlflow.start_run() as run:
    pass
print(json.dumps(mlflow.get_run(run.info.run_id).data.tags))
"""

HOSTILE_MACHINE = """
import io, os, pathlib, platform
def refusing(ask):
    def asked(self, *args, **kwargs):
        if str(self).startswith("/proc/"):
            raise PermissionError(13, "Permission denied", str(self))
        return ask(self, *args, **kwargs)
    return asked
def refuse(*_):
    raise OSError("not for you")
pathlib.Path.open = refusing(pathlib.Path.open)
pathlib.Path.iterdir = refusing(pathlib.Path.iterdir)
os.sched_getaffinity = refuse
sysconf = os.sysconf  # psutil, which MLflow imports where it is installed, asks for other things
os.sysconf = lambda name: refuse() if "PAGE" in str(name) else sysconf(name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import mlflow", "import mlflow_meta.plugin"])
def test_a_new_run_carries_the_tags_whichever_is_imported_first(first: str, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tags = json.loads(run_python(first + TAGS_OF_A_NEW_RUN, MLFLOW_TRACKING_URI=uri))
    assert hardware_tags().items() <= tags.items()


@linux_only
@pytest.mark.slow
def test_a_machine_that_refuses_every_question_can_still_import_mlflow_and_run(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tags = json.loads(run_python(HOSTILE_MACHINE + TAGS_OF_A_NEW_RUN, MLFLOW_TRACKING_URI=uri))
    assert {tag for tag in tags if tag.startswith(PREFIX)} == {f"{PREFIX}machine"}


@pytest.mark.slow
def test_a_run_of_someone_who_opted_out_has_none_of_the_tags(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tags = run_python(TAGS_OF_A_NEW_RUN, MLFLOW_TRACKING_URI=uri, MLFLOW_META_HARDWARE="0")
    assert PREFIX not in tags
