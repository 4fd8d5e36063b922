"""Tests for plugin.py: each fact against a second source, and machines that refuse."""

import json
import os
import re
import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlflow_meta import plugin
from mlflow_meta.plugin import PREFIX, HardwareRunContext, hardware_tags

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with Linux's /proc")


@pytest.fixture(autouse=True)
def _forget_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Facts are compared with the machine's own, whatever container and packages a test has.
    monkeypatch.setattr(plugin, "OWN_CGROUP", tmp_path / "no cgroup")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    hardware_tags.cache_clear()
    plugin._nvml_gpus.cache_clear()
    yield
    hardware_tags.cache_clear()
    plugin._nvml_gpus.cache_clear()


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
    times_s = timeit.repeat(HardwareRunContext().tags, number=1, repeat=1000)
    assert statistics.median(times_s) < 0.000_5


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts this process into a cgroup of version 2 with these files, below one with others."""
    monkeypatch.setattr(plugin, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(plugin, "CGROUPS", tmp_path / "groups")

    def limit(file: str, inner: str | None, outer: str | None = None) -> None:
        (tmp_path / "own").write_text("1:cpu:/elsewhere\n0::/job.slice/step\n")
        for group, text in (("job.slice/step", inner), ("job.slice", outer)):
            (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
            if text is not None:
                (tmp_path / "groups" / group / file).write_text(text)

    return limit


@pytest.mark.parametrize(
    ("inner", "outer", "cores"),
    [
        ("150000 100000\n", None, "2"),  # a part of a core is one
        ("max 100000\n", "300000 100000\n", "3"),  # the lower of the two counts
        ("400000 100000\n", "300000 100000\n", "3"),
        ("1000 100000\n", None, "1"),
        ("900000 100000\n", None, "8"),  # more than there is
        ("max 100000\n", None, "8"),
        (None, None, "8"),
        ("", None, "8"),
        ("100000 0\n", None, "8"),
        ("a b c\n", None, "8"),
    ],
)
def test_a_containers_limit_of_cores_counts_where_it_is_lower(
    cgroup: Callable[..., None],
    inner: str | None,
    outer: str | None,
    cores: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    cgroup("cpu.max", inner, outer)
    assert facts()["cpu_cores"] == cores


@pytest.mark.parametrize(
    ("inner", "outer", "memory_gb"),
    [
        ("2147483648\n", None, "2.1"),
        ("max\n", "1000000000\n", "1.0"),
        ("2147483648\n", "1000000000\n", "1.0"),
        ("99999999999999\n", None, "8.2"),
        ("max\n", None, "8.2"),
        ("plenty\n", None, "8.2"),
        ("", None, "8.2"),
    ],
)
def test_a_containers_limit_of_memory_counts_where_it_is_lower(
    cgroup: Callable[..., None],
    inner: str | None,
    outer: str | None,
    memory_gb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    cgroup("memory.max", inner, outer)
    assert facts()["memory_gb"] == memory_gb


def test_where_the_system_does_not_tell_the_memory_psutil_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    psutil = SimpleNamespace(
        virtual_memory=lambda: SimpleNamespace(total=16_000_000_000),
        Process=lambda: SimpleNamespace(cpu_affinity=lambda: [0, 1, 2]),
    )
    monkeypatch.setitem(sys.modules, "psutil", psutil)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert (facts()["memory_gb"], facts()["cpu_cores"]) == ("16.0", "3")


def test_without_psutil_the_memory_of_windows_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert "memory_gb" not in facts()
    assert facts()["cpu_cores"] == str(os.cpu_count())


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


NVML = """
from types import SimpleNamespace
GPUS = [(b"NVIDIA A100-SXM4-80GB", 85_899_345_920), ("NVIDIA L4", 24_152_899_584)]
started = 0
def nvmlInit():
    global started
    started += 1
def nvmlShutdown():
    global started
    started -= 1
def nvmlDeviceGetCount():
    assert started
    return len(GPUS)
def nvmlDeviceGetHandleByIndex(i):
    assert started
    return GPUS[i]
def nvmlDeviceGetName(gpu):
    return gpu[0]
def nvmlDeviceGetMemoryInfo(gpu):
    return SimpleNamespace(total=gpu[1], used=1)
"""

HARDWARE_BY_NVML = """
import json, pathlib, sys
from mlflow_meta import plugin
assert not {"pynvml", "psutil", "mlflow", "numpy", "pandas"} & sys.modules.keys()
plugin.NVIDIA_GPUS = pathlib.Path(sys.argv[0]).parent / "driver"
gpu = plugin.NVIDIA_GPUS / "0000:00:00.0"
gpu.mkdir(parents=True)
(gpu / "information").write_text("Model: \\t Fallback\\n")
tags = plugin.HardwareRunContext().tags()
assert tags == plugin.HardwareRunContext().tags()
nvml = sys.modules.get("pynvml")
assert getattr(nvml, "started", 0) == 0, "NVML was not shut down"
print(json.dumps({k.rpartition(".")[2]: v for k, v in tags.items() if "gpu" in k or "acc" in k}))
"""


def hardware_by(nvml: str, folder: Path) -> dict[str, str]:
    """What a fresh interpreter tags of GPUs, where NVML is `nvml` and /proc knows one GPU."""
    (folder / "pynvml.py").write_text(nvml)
    (folder / "main.py").write_text(HARDWARE_BY_NVML)
    command = [sys.executable, str(folder / "main.py")]  # its folder is the first of sys.path
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return told


def test_nvml_tells_the_models_and_the_memory_of_the_smallest_gpu(tmp_path: Path) -> None:
    assert hardware_by(NVML, tmp_path) == {
        "accelerator": "true",
        "gpu_model": "NVIDIA A100-SXM4-80GB, NVIDIA L4",
        "gpu_count": "2",
        "gpu_memory_gb": "24.2",
    }


@linux_only
@pytest.mark.parametrize(
    "broken",
    [
        "raise ImportError('no such thing')",
        "raise SystemExit(3)",
        "raise GeneratorExit",
        "class Odd(BaseException): pass\nraise Odd",
        "this is no Python",
        "",
        NVML + "def nvmlInit(): raise RuntimeError('Driver Not Loaded')",
        NVML + "def nvmlInit(): raise SystemExit",
        NVML + "def nvmlDeviceGetCount(): return 'many'",
        NVML + "GPUS = []",
        NVML + "def nvmlDeviceGetName(gpu): return b'\\xff'",
        NVML + "def nvmlDeviceGetMemoryInfo(gpu): raise RuntimeError('Not Supported')",
        NVML + "def nvmlDeviceGetMemoryInfo(gpu): return None",
    ],
)
def test_however_nvml_fails_the_driver_still_tells_the_gpu(broken: str, tmp_path: Path) -> None:
    told = {"accelerator": "true", "gpu_model": "Fallback", "gpu_count": "1"}
    assert hardware_by(broken, tmp_path) == told


def test_ctrl_c_while_nvml_starts_is_the_users_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=interrupted))
    with pytest.raises(KeyboardInterrupt):
        HardwareRunContext().tags()


TAGS_OF_A_NEW_RUN = """
import json, mlflow
with mlflow.start_run() as run:
    pass
print(json.dumps(mlflow.get_run(run.info.run_id).data.tags))
"""

TAGS_OF_THE_MACHINE = """
import json
from mlflow_meta.plugin import hardware_tags
print(json.dumps(dict(hardware_tags())))
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
    of_another_process = json.loads(run_python(TAGS_OF_THE_MACHINE))
    assert f"{PREFIX}machine" in of_another_process
    assert of_another_process.items() <= tags.items()


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
