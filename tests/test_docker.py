"""What docker/ holds is whole and right, as far as it shows without Docker and Kubernetes.

`integration/test_compose.py` runs it, and `test_docker_image.py` the image's own programs.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from mlflow_meta.cli import main

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
IMAGE = DOCKER / "image"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = (DOCKER / "compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (DOCKER / ".env.example").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
PODS = ("cycle", "serving", "worker")
VERSION = version("mlflow-meta")
USER = 10001
CRON_LINE = re.compile(r"(?:[\d*/,-]+\s+){5}(?P<command>\S.*)")


def run(*argv: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, **given)


def beside_python(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def manifest(name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((DOCKER / "kubernetes" / f"{name}.yaml").read_text())
    return dict(next(documents))


def pod(name: str) -> dict[str, Any]:
    spec = manifest(name)["spec"]
    return dict(spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"])


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Where `mlflow-meta` is called, and how."""
    yield "compose", ["mlflow-meta", *SERVICES["worker"]["command"]]
    (container,) = pod("worker")["containers"]
    yield "kubernetes", [*container["command"], *container["args"]]
    workflow = yaml.safe_load((DOCKER / "examples" / "github-actions.yaml").read_text())
    steps = [step.get("run", "") for step in workflow["jobs"]["cycle"]["steps"]]
    texts = {
        "GitHub Actions": "\n".join(steps),
        "Airflow": cycle_of_airflow(),
        "README": (DOCKER / "README.md").read_text(),
        "crontab": (DOCKER / "crontab").read_text(),
        "Dockerfile": DOCKERFILE,
    }
    verbs = "|".join(main.commands)
    texts["README"] = re.sub(r"^\|.*", "", texts["README"], flags=re.M)  # a table in prose
    for where, text in texts.items():
        for found in re.findall(rf"mlflow-meta(?::[\d.]+)? ((?:{verbs})\b[^`|&;\n]*)", text):
            yield where, ["mlflow-meta", *shlex.split(found, comments=True)]


def cycle_of_airflow() -> str:
    tree = ast.parse((DOCKER / "examples" / "airflow_dag.py").read_text())
    (command,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CYCLE"
    ]
    return str(command)


@pytest.mark.parametrize(
    ("where", "argv"), list(command_lines()), ids=lambda x: x if isinstance(x, str) else x[1]
)
def test_every_command_line_is_one_of_ours(where: str, argv: Sequence[str]) -> None:
    words = [re.sub(r"\$[{(]?(\w+)[})]?", lambda found: EXAMPLE[found[1]], word) for word in argv]
    try:
        main.commands[words[1]].make_context(words[1], words[2:])
    except click.UsageError as error:
        pytest.fail(f"{where}: {shlex.join(argv)}: {error.format_message()}")


def test_every_way_of_running_the_loop_is_one_cycle() -> None:
    found: dict[str, list[str]] = {}
    for where, argv in command_lines():
        found.setdefault(where, []).append(argv[1])
    for where in ("crontab", "GitHub Actions", "Airflow"):
        assert found[where] == ["cycle"]


@pytest.mark.parametrize(
    ("schema", "name"),
    [("compose-spec", "compose.yaml"), ("github-workflows", "examples/github-actions.yaml")],
)
def test_the_files_are_as_their_schemas_say(schema: str, name: str) -> None:
    program = beside_python("check-jsonschema")
    done = run(program, "--builtin-schema", f"vendor.{schema}", DOCKER / name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_are_as_kubernetes_says(path: Path) -> None:
    done = run(beside_python("kubernetes-validate"), "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed for resource" in done.stdout + done.stderr


def test_every_variable_of_compose_has_its_line_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    among_themselves = set(re.findall(r"\$\{(\w+)\}", " ".join(EXAMPLE.values())))
    assert used | among_themselves == set(EXAMPLE)


def test_secrets_are_empty_in_the_example_and_demanded_by_compose() -> None:
    empty = {name for name, value in EXAMPLE.items() if not value}
    assert empty == {name for name in EXAMPLE if re.search("PASSWORD|KEY", name)}
    for name in empty:
        assert set(re.findall(rf"\$\{{{name}(:?\W)", COMPOSE)) == {":?"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_healthy_or_ends_and_stays_up_after_a_crash(name: str) -> None:
    service = SERVICES[name]
    check = service["healthcheck"]
    assert ("test" in check) != check.get("disable", False)
    assert service["restart"] == ("unless-stopped" if "test" in check else "no")
    ends = "service_completed_successfully"
    for needed, told in service.get("depends_on", {}).items():
        checks = SERVICES[needed]["healthcheck"]
        assert told["condition"] == ("service_healthy" if "test" in checks else ends)


@pytest.mark.parametrize("name", SERVICES)
def test_every_volume_of_a_service_is_declared_or_a_folder(name: str) -> None:
    declared = yaml.safe_load(COMPOSE)["volumes"]
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.split(":")[0].removeprefix("${").removesuffix("}")
        source = EXAMPLE.get(source, source)
        assert source in declared or source.startswith("./")


def test_images_are_pinned_and_ours_is_of_this_version() -> None:
    named = [service["image"] for service in SERVICES.values()]
    named += [container["image"] for name in PODS for container in pod(name)["containers"]]
    named += [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    for image in named:
        assert re.fullmatch(r"[\w./-]+:\d+(?:\.\d+)+[\w.-]*", image), image
    ours = {image for image in named if image.startswith("mlflow-meta")}
    assert ours == {f"mlflow-meta:{VERSION}", f"mlflow-meta-training:{VERSION}"}
    assert set(re.findall(r"mlflow-meta:(\d[\d.]*\d)", (DOCKER / "README.md").read_text())) == {
        VERSION
    }


def test_the_dockerfile_copies_what_there_is_and_the_build_sees() -> None:
    seen = [
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    }
    assert copied == set(seen)
    for source in copied:
        assert (ROOT / source).exists(), source


def test_the_image_is_pinned_and_nobodys_root() -> None:
    installs = re.findall(r"pip install (.+)", DOCKERFILE)
    assert installs
    for options in installs:
        assert "-c constraints.txt" in options or "--no-deps" in options
    users = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    assert users == [(str(USER), str(USER))]
    assert f"useradd --uid {USER} " in DOCKERFILE
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT ")


@pytest.mark.parametrize("path", sorted(IMAGE.glob("*.*")), ids=lambda path: path.name)
def test_the_images_programs_can_be_run(path: Path) -> None:
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_text().startswith(("#!/usr/bin/env python3\n", "#!/bin/sh\n"))


@pytest.mark.parametrize("name", PODS)
def test_the_pods_may_do_little_and_say_how_much_they_take(name: str) -> None:
    spec = pod(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    (container,) = spec["containers"]
    may = container["securityContext"]
    assert may["readOnlyRootFilesystem"] and may["allowPrivilegeEscalation"] is False
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/home/meta", "/tmp"}
    assert set(container["resources"]) == {"requests", "limits"}
    assert name == "cycle" or "readinessProbe" in container
    assert {next(iter(source)) for source in container["envFrom"]} == {"configMapRef", "secretRef"}


def test_the_service_of_kubernetes_finds_its_pods() -> None:
    deployment, service = yaml.safe_load_all((DOCKER / "kubernetes/serving.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == labels == deployment["spec"]["selector"]["matchLabels"]


def test_the_loop_is_told_all_that_it_asks_for() -> None:
    wanted = set(re.findall(r"\"\$(\w+)\"", (DOCKER / "crontab").read_text()))
    assert wanted == {"EXPERIMENT", "METRIC", "SUGGESTIONS"}
    assert wanted <= set(SERVICES["scheduler"]["environment"])
    assert wanted | {"MLFLOW_TRACKING_URI"} <= set(manifest("settings")["data"])
    (container,) = pod("cycle")["containers"]
    assert set(re.findall(r"\$\((\w+)\)", " ".join(container["command"]))) == wanted


def test_the_crontab_runs_what_the_image_has() -> None:
    lines = [
        line for line in (DOCKER / "crontab").read_text().splitlines() if not line.startswith("#")
    ]
    assert lines
    for line in lines:
        job = CRON_LINE.fullmatch(line)
        assert job is not None, line
        program = shlex.split(job["command"])[0]
        assert program == "mlflow-meta" or (IMAGE / program).exists()


def test_the_dag_of_airflow_compiles() -> None:
    path = DOCKER / "examples" / "airflow_dag.py"
    compile(path.read_text(), str(path), "exec")
