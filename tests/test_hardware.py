"""Tests for store/hardware.py: one spelling from the many by which runs tell their hardware."""

import json
import math
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_meta import plugin
from mlflow_meta.store.hardware import hardware_of, is_hardware

KINDS = {
    "cpu_model": str,
    "cpu_cores": int,
    "memory_gb": float,
    "gpu_model": str,
    "gpu_count": int,
    "gpu_memory_gb": float,
    "accelerator": bool,
    "instance_type": str,
    "machine": str,
}
OURS = {
    "mlflow_meta.hardware.cpu_model": "AMD EPYC 7R32",
    "mlflow_meta.hardware.cpu_cores": "8",
    "mlflow_meta.hardware.memory_gb": "63.2",
    "mlflow_meta.hardware.machine": "x86_64",
    "mlflow_meta.hardware.accelerator": "true",
    "mlflow_meta.hardware.gpu_model": "NVIDIA A10G",
    "mlflow_meta.hardware.gpu_count": "1",
    "mlflow_meta.hardware.gpu_memory_gb": "24.1",
}
KEYS = [
    "gpu gpus GPU gpu_model gpu-name Gpu_Type gpu_count n_gpus num_gpus gpu_memory device",
    "device_name accelerator hardware instance_type machine-type node_type cpu cpu_model cpu_cores",
    "n_cpus num_cpus cpu_count memory memory_gb ram ram_gb instanceType gpuModel gpu.0.name",
    "ray.num_gpus ray/num_cpus ray.io/accelerator-type resources_per_trial hardware.gpu sys.cpu",
    "hw.gpu_memory_mb cuda_available mlflow.databricks.cluster.info",
    "mlflow_meta.hardware.gpu_model",
]
HARDWARE_KEYS = " ".join(KEYS).split()


def metrics(gpus: int, share: float, *, total_gb: float = 85.9, node: str = "") -> dict[str, float]:
    """What MLflow logs on a machine with 128 GiB and these GPUs, this share (in %) in use."""
    of_the_machine = {
        "cpu_utilization_percentage": 12.5,
        "system_memory_usage_megabytes": round(137_438.953 * share / 100, 1),
        "system_memory_usage_percentage": round(share, 1),
        "disk_usage_megabytes": 5_000.0,
        "disk_usage_percentage": 20.0,
        "network_receive_megabytes": 3.0,
    }
    of_the_gpus = {
        f"gpu_{i}_{name}": value
        for i in range(gpus)
        for name, value in {
            "memory_usage_megabytes": round(total_gb * 1000 * share / 100, 1),
            "memory_usage_percentage": round(share, 1),
            "utilization_percentage": 99.0,
            "power_usage_watts": 250.0,
            "power_usage_percentage": 80.0,
        }.items()
    }
    return {
        f"system/{node}{name}": value for name, value in {**of_the_machine, **of_the_gpus}.items()
    }


def test_our_plugins_tags_are_typed() -> None:
    assert hardware_of(OURS, {}) == {
        "cpu_model": "AMD EPYC 7R32",
        "cpu_cores": 8,
        "memory_gb": 63.2,
        "machine": "x86_64",
        "accelerator": True,
        "gpu_model": "A10G",
        "gpu_count": 1,
        "gpu_memory_gb": 24.1,
    }


def test_every_fact_that_our_plugin_tags_is_known_here() -> None:
    said = {f"{plugin.PREFIX}{name}" for name in plugin._FACTS}
    assert said <= OURS.keys()
    assert all(map(is_hardware, said))


def test_this_machines_own_tags_are_all_understood() -> None:
    tags = plugin.hardware_tags()
    told = {key.removeprefix(plugin.PREFIX) for key in tags}
    assert hardware_of(tags, {}).keys() >= told


@pytest.mark.parametrize("share", [1.1, 5.0, 33.3, 50.0, 97.6])
def test_total_memory_follows_from_the_share_in_use(share: float) -> None:
    told = hardware_of({}, metrics(4, share))
    assert told["gpu_count"] == 4
    assert told["accelerator"] is True
    assert told["gpu_memory_gb"] == pytest.approx(85.9, rel=0.06)
    assert told["memory_gb"] == pytest.approx(137.4, rel=0.06)


def test_runs_on_one_machine_have_one_total() -> None:
    totals = {
        (told["memory_gb"], told["gpu_memory_gb"])
        for share in range(20, 100)
        if (told := hardware_of({}, metrics(1, share + 0.017)))
    }
    assert totals == {(140.0, 86.0)}


@pytest.mark.parametrize("share", [0.0, 0.9, math.nan, math.inf, -5.0, 100.1])
def test_a_share_that_tells_no_total_is_left_out(share: float) -> None:
    logged = metrics(1, 50.0)
    logged["system/system_memory_usage_percentage"] = share
    logged["system/gpu_0_memory_usage_percentage"] = share
    assert hardware_of({}, logged) == {"gpu_count": 1, "accelerator": True}


def test_the_gpu_that_is_used_most_tells_the_memory() -> None:
    logged = metrics(1, 60.0)
    logged |= {
        "system/gpu_1_memory_usage_percentage": 1.0,  # 0.96 %, rounded by MLflow
        "system/gpu_1_memory_usage_megabytes": 824.6,
    }
    assert hardware_of({}, logged)["gpu_memory_gb"] == 86.0


def test_gpus_of_several_nodes_are_added_up_and_their_memory_is_not() -> None:
    logged = metrics(2, 50.0, node="node_0/") | metrics(2, 50.0, node="node_1/")
    told = hardware_of({}, logged)
    assert (told["gpu_count"], told["gpu_memory_gb"], told["memory_gb"]) == (4, 86.0, 140.0)


def test_gpus_of_amd_are_logged_in_gigabytes() -> None:
    logged = {
        "system/gpu_0_memory_usage_gigabytes": 32.0,
        "system/gpu_0_memory_usage_percentage": 50.0,
    }
    assert hardware_of({}, logged)["gpu_memory_gb"] == 64.0


def test_metrics_show_a_gpu_that_our_plugin_cannot_see() -> None:
    tags = {"mlflow_meta.hardware.accelerator": "false"}
    assert hardware_of(tags, {}) == {"accelerator": False}
    assert hardware_of(tags, metrics(1, 50.0))["accelerator"] is True


def test_a_machine_without_gpu_metrics_may_still_have_a_gpu() -> None:
    assert hardware_of({}, metrics(0, 50.0)) == {"memory_gb": 140.0}


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        (
            {"node_type_id": "i3.4xlarge", "driver_node_type_id": "m5.4xlarge"},
            {"instance_type": "m5.4xlarge"},
        ),
        (
            {"node_type_id": "Standard_NC6s_v3", "spark_version": "13.1.x-gpu-ml-scala2.12"},
            {"instance_type": "Standard_NC6s_v3", "accelerator": True},
        ),
        (
            {"node_type_id": 5, "spark_version": "13.1.x-cpu-ml-scala2.12", "num_workers": 1},
            {"accelerator": False},
        ),
        ({"cluster_name": "shared", "spark_version": None}, {}),
        ([], {}),
    ],
)
def test_a_databricks_cluster_has_the_type_of_its_driver(
    cluster: object, told: Mapping[str, object]
) -> None:
    assert hardware_of({"mlflow.databricks.cluster.info": json.dumps(cluster)}, {}) == told


@pytest.mark.parametrize("text", ["", "{", "null", "[" * 100_000, '{"node_type_id": "' + "x" * 999])
def test_a_broken_cluster_tells_nothing(text: str) -> None:
    assert hardware_of({"mlflow.databricks.cluster.info": text}, {}) == {}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("ray.num_gpus", "2", {"gpu_count": 2, "accelerator": True}),
        ("ray.num_gpus", "0.5", {}),
        ("ray/num_cpus", "4.0", {"cpu_cores": 4}),
        ("ray.io/accelerator-type", "A100", {"gpu_model": "A100", "accelerator": True}),
        ("accelerator_type", "accelerator_type:A100", {"gpu_model": "A100", "accelerator": True}),
        (
            "resources_per_trial",
            '{"CPU": 4, "GPU": 1, "accelerator_type:A100": 0.001, "memory": 6.4e10}',
            {"cpu_cores": 4, "gpu_count": 1, "gpu_model": "A100", "memory_gb": 64.0}
            | {"accelerator": True},
        ),
        ("resources_per_worker", "{'CPU': 2, 'GPU': 0}", {"cpu_cores": 2, "accelerator": False}),
    ],
)
def test_rays_resources_are_hardware(key: str, value: str, told: Mapping[str, object]) -> None:
    assert hardware_of({key: value}, {}) == told


@pytest.mark.parametrize(
    ("value", "model", "count"),
    [
        ("A100", "A100", None),
        ("a100", "A100", None),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB", None),
        ("nvidia-tesla-a100", "A100", None),
        ("Tesla T4", "T4", None),
        ("NVIDIA GeForce RTX 3090", "RTX 3090", None),
        ("rtx_2080ti", "RTX 2080TI", None),
        ("GTX 970", "GTX 970", None),
        ("2", None, 2),
        ("2.0", None, 2),
        ("4 GPUs", None, 4),
        ("0,1,3", None, 3),
        ("2x A100", "A100", 2),
        ("2 x A100", "A100", 2),
        ("8xH100", "H100", 8),
        ("8\u00d7H100", "H100", 8),
        ("4 A100-SXM4-80GB", "A100-SXM4-80GB", 4),
        ("A100 x2", "A100", 2),
        ("A100 (x4)", "A100", 4),
        ("A100-80GBx8", "A100-80GB", 8),
        ("RTX 3090 x 2", "RTX 3090", 2),
        ("gpu:a100:4", "A100", 4),
        ("GPU T4 x2", "T4", 2),
        ("NVIDIA H100, NVIDIA A100, NVIDIA H100", "A100, H100", None),
    ],
)
@pytest.mark.parametrize("key", ["gpu", "GPUs", "gpu_model", "n-gpus"])
def test_a_gpu_tag_holds_a_model_a_count_or_both(
    key: str, value: str, model: str | None, count: int | None
) -> None:
    expected = {"gpu_model": model, "gpu_count": count, "accelerator": True}
    told = {name: fact for name, fact in expected.items() if fact is not None}
    assert hardware_of({key: value}, {}) == told


def test_a_large_number_is_a_count_only_where_the_key_says_so() -> None:
    assert hardware_of({"gpu": "3090"}, {}) == {"gpu_model": "3090", "accelerator": True}
    assert hardware_of({"num_gpus": "3090"}, {}) == {"gpu_count": 3090, "accelerator": True}


@pytest.mark.parametrize(
    ("key", "value", "accelerator"),
    [
        ("gpu", "true", True),
        ("gpu", "Yes", True),
        ("gpu", "none", False),
        ("gpu", "no", False),
        ("gpu", "cpu", False),
        ("gpu", "0", None),  # the first GPU, or none
        ("gpus", "0", False),
        ("num_gpus", "0", False),
        ("gpu_available", "False", False),
        ("cuda-available", "1", True),
        ("gpu_names", "/physical_device:GPU:0, /physical_device:GPU:1", True),
        ("gpu_name", "N/A", None),
        ("device", "cuda", True),
        ("device", "cuda:0", True),
        ("device", "0", True),
        ("device", "gpu", True),
        ("device", "mps", True),
        ("device", "tpu", True),
        ("device", "TPU v4", True),
        ("device", "cpu", False),
        ("device", "kitchen", None),
        ("accelerator", "GPU", True),
        ("accelerator", "ddp", None),
        ("accelerator", "auto", None),
        ("hardware", "CPU", False),
    ],
)
def test_a_yes_or_a_device_tells_whether_there_is_an_accelerator(
    key: str, value: str, accelerator: bool | None
) -> None:
    expected = {} if accelerator is None else {"accelerator": accelerator}
    assert hardware_of({key: value}, {}) == expected


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("device", "NVIDIA A100-SXM4-80GB", {"gpu_model": "A100-SXM4-80GB", "accelerator": True}),
        ("device_name", "Quadro RTX 6000", {"gpu_model": "QUADRO RTX 6000", "accelerator": True}),
        ("device_name", "Intel(R) Xeon(R)", {"cpu_model": "Intel(R) Xeon(R)"}),
        ("hardware", "4xA100", {"gpu_model": "A100", "gpu_count": 4, "accelerator": True}),
        ("hardware", "p3.2xlarge", {"instance_type": "p3.2xlarge"}),
        ("hardware", "p4.xlarge", {"instance_type": "p4.xlarge"}),
        ("instanceType", "ml.g4dn.xlarge", {"instance_type": "ml.g4dn.xlarge"}),
        ("Machine_Type", "n1-standard-8", {"instance_type": "n1-standard-8"}),
        ("machine_type", "AMD64", {"machine": "x86_64"}),
        ("node-type", "", {}),
        ("cpu", "8", {"cpu_cores": 8}),
        ("cpu", "16 vCPU", {"cpu_cores": 16}),
        ("cpu", "AMD  EPYC\t7R32", {"cpu_model": "AMD EPYC 7R32"}),
        ("cpu", "yes", {}),
        ("cpu", "Xeon " * 30, {}),  # a text, not a name
        ("sys.cpu", "arm64", {"machine": "aarch64"}),
        ("cpu_count", "0", {}),
        ("cpu_cores", "99999", {}),
        ("n_cpus", "-4", {}),
        ("gpu.0.name", "Tesla T4", {"gpu_model": "T4", "accelerator": True}),
        ("gpu.0.memory.total_MB", "16160", {"gpu_memory_gb": 16.2}),
        ("hardware.gpu.vram_gb", "24.1", {"gpu_memory_gb": 24.1}),
    ],
)
def test_other_tags_tell_what_they_hold(key: str, value: str, told: Mapping[str, object]) -> None:
    assert hardware_of({key: value}, {}) == told


@pytest.mark.parametrize(
    ("value", "memory_gb"),
    [
        ("64 GB", 64.0),
        ("64GB", 64.0),
        ("64", 64.0),
        ("63.27", 63.3),
        ("64GiB", 68.7),
        ("64Gi", 68.7),
        ("65536 MB", 65.5),
        ("65536MiB", 68.7),
        ("67430000000", 67.4),
        ("67430000000 bytes", 67.4),
        ("1.5 TB", 1500.0),
        ("65536", None),  # MB, maybe; nobody has so many GB
        ("0", None),
        ("-64", None),
        ("nan", None),
        ("inf", None),
        ("1e99", None),
        ("lots", None),
        ("64 bananas", None),
        ("9" * 400, None),
    ],
)
@pytest.mark.parametrize("key", ["memory", "RAM", "memory-gb", "ram_gb"])
def test_memory_is_in_units_of_10_to_the_9_bytes(
    key: str, value: str, memory_gb: float | None
) -> None:
    assert hardware_of({key: value}, {}) == ({} if memory_gb is None else {"memory_gb": memory_gb})


def test_sources_are_believed_in_order() -> None:
    sources: list[tuple[dict[str, str], dict[str, float]]] = [
        ({"mlflow_meta.hardware.gpu_count": "1"}, {}),
        ({}, metrics(2, 0.0)),
        ({"ray.num_gpus": "3"}, {}),
        ({"gpu_count": "4"}, {}),
        ({"gpu": "5"}, {}),
        ({"hardware": "6xA100"}, {}),
    ]
    for first in range(len(sources)):
        later = sources[first:][::-1]  # the order of the tags is no matter
        tags = {key: value for tags, _ in later for key, value in tags.items()}
        system = {key: value for _, system in later for key, value in system.items()}
        assert hardware_of(tags, system)["gpu_count"] == first + 1


@pytest.mark.parametrize("key", HARDWARE_KEYS)
def test_keys_of_hardware_are_told_from_others(key: str) -> None:
    assert is_hardware(key)
    assert not is_hardware(f"my_{key}")


@pytest.mark.parametrize(
    "key",
    [
        *("threads", "n_threads", "team", "model", "architecture", "gpu_memory_used", "trial_name"),
        *("mlflow.device", "mlflow_meta.gpu", "device_context", "ray", "system", "", "_"),
        "x" * 10_000,
    ],
)
def test_a_key_of_something_else_is_a_tag_like_any_other(key: str) -> None:
    assert not is_hardware(key)
    assert hardware_of({key: "2"}, {}) == {}


def is_sane(told: Mapping[str, object]) -> bool:
    typed = all(type(fact) is KINDS[name] for name, fact in told.items())
    numbers = [fact for fact in told.values() if type(fact) in (int, float)]
    texts = [fact for fact in told.values() if isinstance(fact, str)]
    return (
        typed
        and all(0 < number <= 1e5 for number in numbers)
        and all(text and text.isprintable() and len(text) <= 100 for text in texts)
    )


VALUES = st.text(max_size=150) | st.from_regex(
    r"\A[0-9a-zA-Z ]{0,4}([xX*:(,. ]{0,3}(\d{1,5}|A100|GB|Mi|cuda|tpu|e|NVIDIA|nan|,)){0,6}\Z"
)


@given(key=st.sampled_from(HARDWARE_KEYS), value=VALUES)
def test_whatever_a_tag_holds_the_facts_are_typed_and_sane(key: str, value: str) -> None:
    assert is_sane(hardware_of({key: value}, {}))


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.floats()))
def test_no_tags_and_metrics_make_it_raise(tags: dict[str, str], system: dict[str, float]) -> None:
    assert is_sane(hardware_of(tags, system))
    assert all(is_hardware(key) in (True, False) for key in tags)


@given(st.dictionaries(st.sampled_from(sorted(metrics(2, 1.0, node="n/"))), st.floats()))
def test_no_values_of_metrics_make_it_raise(system: dict[str, float]) -> None:
    assert is_sane(hardware_of({}, system))


@pytest.mark.slow
def test_a_hundred_thousand_runs_take_seconds() -> None:
    shared = OURS | {f"tag_{i}": "x" for i in range(15)} | {"gpu": "2x A100", "device": "cuda:0"}
    runs = [
        (shared | {"memory": f"{i / 100} GB"}, {key: value + i for key, value in logged.items()})
        for i in range(5_000)
        if (logged := metrics(2, 50.0))
    ]
    began = time.process_time()
    for tags, system in runs:
        hardware_of(tags, system)
    assert time.process_time() - began < 0.5  # 10 s for 100,000; 1.5 s on a machine at rest
