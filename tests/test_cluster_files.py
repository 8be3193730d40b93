"""The files of cluster/: what their formats' own schemas say, and that the commands in them are the jobs'."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import tyro
import yaml
from botocore.validate import ParamValidator
from cluster.latest_run import latest_run
from ray.autoscaler._private.util import prepare_config, validate_config

import artsel_ray.config
from artsel_ray import storage

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
RAY_UP = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
OBJECTS = [each for file in sorted(CLUSTER.glob("kuberay/*.yaml")) for each in yaml.safe_load_all(file.read_text())]


def name(each: dict[str, Any]) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] in kinds]


def ray_cluster(each: dict[str, Any]) -> dict[str, Any]:
    """The cluster of a RayCluster, RayJob or RayCronJob."""
    spec = each["spec"].get("jobTemplate", each["spec"])
    return spec.get("rayClusterSpec", spec)


def pods(each: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All pod templates in an object."""
    for value in each.values():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                if "containers" in child.get("spec", {}):
                    yield child
                yield from pods(child)


PLAIN = ("Namespace", "ServiceAccount", "PriorityClass", "NetworkPolicy", "CronJob")
KUBERAY = ("RayCluster", "RayJob", "RayCronJob")
PROMETHEUS = ("PodMonitor", "PrometheusRule")


def test_every_object_is_checked() -> None:
    assert {each["kind"] for each in OBJECTS} == {*PLAIN, *KUBERAY, *PROMETHEUS}


@pytest.mark.parametrize("each", of_kind(*PLAIN), ids=name)
def test_objects_of_kubernetes(each: dict[str, Any]) -> None:
    kubernetes_validate.validate(each, "1.37", strict=True)


@pytest.mark.parametrize("each", of_kind(*KUBERAY), ids=name)
def test_pods_of_kuberay(each: dict[str, Any]) -> None:
    for pod in pods(each):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "PodTemplate", "template": pod}, "1.37", strict=True)


@pytest.mark.parametrize("each", of_kind(*KUBERAY), ids=name)
def test_objects_of_kuberay(each: dict[str, Any]) -> None:
    file = SCHEMAS / f"ray.io_{each['kind'].lower()}s.v1.json.gz"
    if not file.exists():
        pytest.skip("KubeRay's schemas are not here")
    schema = json.loads(gzip.decompress(file.read_bytes()))
    _be_strict(schema)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(each)] == []


def _be_strict(schema: Any) -> None:
    """As an API server: unknown fields are refused, and what has a default need not be given."""
    if isinstance(schema, list):
        for each in schema:
            _be_strict(each)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema.setdefault("additionalProperties", False)
            if "required" in schema:
                schema["required"] = [key for key in schema["required"] if "default" not in properties.get(key, {})]
        for each in schema.values():
            _be_strict(each)


def test_one_cluster_and_one_night_in_all_of_kuberays_files() -> None:
    (cluster,), (job,), (cron) = of_kind("RayCluster"), of_kind("RayJob"), of_kind("RayCronJob")
    assert ray_cluster(job) == cluster["spec"]
    assert cron[0]["spec"]["jobTemplate"] == job["spec"]


@pytest.mark.parametrize("each", of_kind("RayCluster"), ids=name)
def test_what_keeps_a_cluster_safe(each: dict[str, Any]) -> None:
    cluster = ray_cluster(each)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert cluster["authOptions"]["mode"] == "token"
    assert head["serviceType"] == "ClusterIP"
    spot = [worker for worker in workers if "spot" in worker["groupName"]]
    assert spot
    assert all(worker["template"]["spec"]["tolerations"] for worker in spot)
    assert "tolerations" not in head["template"]["spec"]
    assert "spot" not in head["template"]["spec"]["nodeSelector"]["artsel/pool"]


@pytest.mark.parametrize("each", of_kind("RayCluster", "RayJob", "CronJob"), ids=name)
def test_every_pod_is_under_a_policy_and_bounded(each: dict[str, Any]) -> None:
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind("NetworkPolicy")]
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
    classes = {priority["metadata"]["name"] for priority in of_kind("PriorityClass")}
    found = list(pods(each))
    assert found
    for pod in found:
        assert pod["metadata"]["labels"] in selected
        assert pod["spec"]["serviceAccountName"] in accounts
        assert pod["spec"].get("priorityClassName", "artsel-head") in classes
        assert all({"requests", "limits"} <= set(each["resources"]) for each in pod["spec"]["containers"])


def test_no_secret_is_in_a_file() -> None:
    assert not of_kind("Secret")
    for file in [file for file in CLUSTER.rglob("*") if file.is_file()]:
        assert not re.search(r"AKIA|(SECRET|_KEY|TOKEN)[A-Z_]*[=:] *\w", file.read_text()), file


def test_ray_up() -> None:
    config = prepare_config(RAY_UP)
    validate_config(config)
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind, node in RAY_UP["available_node_types"].items():
        request = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()
        assert set(request) <= set(shape.members), kind
        assert ("InstanceMarketOptions" in request) == ("spot" in kind)
    assert "spot" not in RAY_UP["head_node_type"]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_the_dockerfile() -> None:
    file = CLUSTER / "Dockerfile"
    linted = subprocess.run([Path(sys.executable).parent / "hadolint", file], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    copied = re.findall(r"^COPY (.+) \S+$", file.read_text(), re.MULTILINE)
    assert len(copied) > 3
    assert [source for line in copied for source in line.split() if not (ROOT / source).exists()] == []


def test_alerts_are_promql() -> None:
    rules = [rule for each in of_kind("PrometheusRule") for group in each["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        promql_parser.parse(rule["expr"])
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"]


def night(arguments: list[str], folder: Path) -> list[str]:
    """The command that night.sh ends with, where the night before is `LAST`."""
    stub = folder / "python"
    stub.write_text('#!/bin/sh\ncase "$1" in *last_night.py) echo LAST;; *) printf "%s\\n" "$@";; esac\n')
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "NIGHT": "2026-11-22"}
    command = ["sh", str(CLUSTER / "night.sh"), *arguments]
    return subprocess.check_output(command, env=environment, text=True).splitlines()


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every job that a file of cluster/ starts: the file's name, and the command behind `python`."""
    for each in of_kind("RayJob", "RayCronJob"):
        entrypoint = each["spec"].get("jobTemplate", each["spec"])["entrypoint"]
        yield name(each), night(shlex.split(entrypoint)[2:], folder)
    for each in of_kind("CronJob"):
        for pod in pods(each):
            yield name(each), night(pod["spec"]["containers"][0]["args"][2:], folder)
    for file in [file for file in CLUSTER.rglob("*") if file.is_file() and file.suffix not in (".sh", ".py")]:
        text = re.sub(r"\\\n\s*", " ", file.read_text())
        for line in re.findall(r"python (jobs/\w+\.py [^\n`|;#]*)", text):
            yield file.name, shlex.split(line)
        for line in re.findall(r"(?<=sh /app/)cluster/night\.sh ([^\n`|;#]*)", text) if file.suffix == ".md" else []:
            yield file.name, night(shlex.split(line), folder)


def test_every_command_is_a_jobs(tmp_path: Path) -> None:
    seen = set()
    for file, (job, *flags) in commands(tmp_path):
        seen.add(file)
        (config,) = re.findall(r"run\((\w+),", (ROOT / job).read_text())
        try:
            tyro.cli(getattr(artsel_ray.config, config), args=flags)
        except SystemExit:
            pytest.fail(f"{file}: {job} {shlex.join(flags)}")
    assert {"RayJob/night", "RayCronJob/night", "CronJob/night", "README.md"} <= seen


def test_a_nights_command(tmp_path: Path) -> None:
    job, *flags = night(["s3://b/a", "--model", "m"], tmp_path)
    config = tyro.cli(artsel_ray.config.ScoreConfig, args=flags)
    assert job == "jobs/score.py"
    assert config.output == "s3://b/a/predictions/night=2026-11-22"
    assert config.requests == "s3://b/a/requests/night=2026-11-22"
    assert (config.previous, config.seed) == ("LAST", 20261122)
    assert (config.explore, config.decoding) == ("epsilon", "rank")


def test_the_last_night_is_one_that_is_whole(tmp_path: Path) -> None:
    predictions = f"{tmp_path}/predictions"
    assert latest_run(predictions, "2026-11-22") is None
    for date, whole in {"2026-11-19": True, "2026-11-20": True, "2026-11-21": False, "2026-11-22": True}.items():
        folder = f"{predictions}/night={date}"
        storage.write_json(f"{folder}/config.json", {})
        if whole:
            storage.write_manifest(folder, {})
    assert latest_run(predictions, "2026-11-22") == f"{predictions}/night=2026-11-20"
    assert latest_run(predictions, "2026-11-19") is None
