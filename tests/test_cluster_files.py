"""The files of cluster/ match their formats' schemas, and the commands in them parse."""

import gzip
import ipaddress
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
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from artsel_ray import storage
from artsel_ray.command_line import parse
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.train.settings import SweepConfig, TrainConfig
from cluster.latest_run import latest_run
from tests.support.job_configs import ROOT, config_type

CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
RAY_UP = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
OBJECTS = [each for file in sorted(CLUSTER.glob("kuberay/*.yaml")) for each in yaml.safe_load_all(file.read_text())]


def name(each: dict[str, Any]) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["kind"] in kinds]


def ray_cluster(each: dict[str, Any]) -> dict[str, Any]:
    """Returns the cluster of a RayCluster, RayJob or RayCronJob."""
    spec = each["spec"].get("jobTemplate", each["spec"])
    return spec.get("rayClusterSpec", spec)


def pods(each: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields all pod templates in an object."""
    for value in each.values():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                if "containers" in child.get("spec", {}):
                    yield child
                yield from pods(child)


KUBERNETES = ("Namespace", "ServiceAccount", "PriorityClass", "NetworkPolicy", "CronJob")
KUBERAY = ("RayCluster", "RayJob", "RayCronJob")
PROMETHEUS = ("PodMonitor", "PrometheusRule")


def test_every_kind_of_object_is_validated() -> None:
    assert {each["kind"] for each in OBJECTS} == {*KUBERNETES, *KUBERAY, *PROMETHEUS}


@pytest.mark.parametrize("each", of_kind(*KUBERNETES), ids=name)
def test_kubernetes_objects_are_valid(each: dict[str, Any]) -> None:
    kubernetes_validate.validate(each, "1.37", strict=True)


@pytest.mark.parametrize("each", of_kind(*KUBERAY), ids=name)
def test_kuberay_pods_are_valid(each: dict[str, Any]) -> None:
    for pod in pods(each):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "PodTemplate", "template": pod}, "1.37", strict=True)


@pytest.mark.parametrize("each", of_kind(*KUBERAY), ids=name)
def test_kuberay_objects_are_valid(each: dict[str, Any]) -> None:
    file = SCHEMAS / f"ray.io_{each['kind'].lower()}s.v1.json.gz"
    if not file.exists():
        pytest.skip(f"{file.name} is not available")
    schema = json.loads(gzip.decompress(file.read_bytes()))
    _make_strict(schema)
    assert [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(each)] == []


def _make_strict(schema: Any) -> None:
    """Makes a schema behave as an API server: unknown fields are refused, and fields with a default are optional."""
    if isinstance(schema, list):
        for each in schema:
            _make_strict(each)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            if not schema.get("x-kubernetes-preserve-unknown-fields"):
                schema.setdefault("additionalProperties", False)
            if "required" in schema:
                schema["required"] = [key for key in schema["required"] if "default" not in properties.get(key, {})]
        for each in schema.values():
            _make_strict(each)


def test_kuberay_files_share_one_cluster_and_one_job() -> None:
    (cluster,), (cron,) = of_kind("RayCluster"), of_kind("RayCronJob")
    (job,) = [each for each in of_kind("RayJob") if "rayClusterSpec" in each["spec"]]
    assert ray_cluster(job) == cluster["spec"]
    assert cron["spec"]["jobTemplate"] == job["spec"]
    others = [each["spec"]["clusterSelector"] for each in of_kind("RayJob") if each is not job]
    assert others == [{"ray.io/cluster": cluster["metadata"]["name"]}] * 2


def test_training_and_sweep_fit_on_one_node_that_the_cluster_starts() -> None:
    (cluster,) = of_kind("RayCluster")
    pods_of = {worker["groupName"]: worker["template"]["spec"] for worker in ray_cluster(cluster)["workerGroupSpecs"]}
    gpus = int(pods_of["gpu-node"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    entrypoints = {each["metadata"]["name"]: shlex.split(each["spec"]["entrypoint"]) for each in of_kind("RayJob")}
    training = parse(TrainConfig, entrypoints["training"][2:]).optimization
    sweep = parse(SweepConfig, entrypoints["sweep"][2:])
    assert (training.workers, training.gpus_per_worker) == (gpus, 1)
    assert (sweep.optimization.workers * (sweep.concurrent or 0), sweep.optimization.gpus_per_worker) == (gpus, 1)


@pytest.mark.parametrize("each", of_kind("RayCluster"), ids=name)
def test_head_needs_a_token_and_avoids_spot_machines(each: dict[str, Any]) -> None:
    cluster = ray_cluster(each)
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert cluster["authOptions"]["mode"] == "token"
    assert head["serviceType"] == "ClusterIP"
    spot = [worker for worker in workers if "spot" in worker["groupName"]]
    assert spot
    assert all(worker["template"]["spec"]["tolerations"] for worker in spot)
    assert "tolerations" not in head["template"]["spec"]
    assert "spot" not in head["template"]["spec"]["nodeSelector"]["artsel/pool"]


def is_head(pod: dict[str, Any]) -> bool:
    return bool(pod["spec"]["containers"][0]["name"] == "ray-head")


PODS = [(name(each), pod) for each in OBJECTS for pod in pods(each)]
every_pod = pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=[source for source, _ in PODS])


def test_every_pod_of_every_file_is_found() -> None:
    assert {source for source, _ in PODS} == {name(each) for each in of_kind("CronJob", *KUBERAY)}
    text = "\n".join(file.read_text() for file in CLUSTER.glob("kuberay/*.yaml"))
    assert len(PODS) == len(re.findall(r"^ *containers:", text, re.MULTILINE)) == 17


@every_pod
def test_pod_has_an_account_a_priority_and_limits(pod: dict[str, Any]) -> None:
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
    classes = {priority["metadata"]["name"] for priority in of_kind("PriorityClass")}
    assert pod["spec"]["serviceAccountName"] in accounts
    assert pod["spec"].get("priorityClassName", "artsel-head") in classes
    assert all({"requests", "limits"} <= set(each["resources"]) for each in pod["spec"]["containers"])


def containers(each: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields all containers in an object, and the autoscaler's settings, which become one in the head's pod."""
    for pod in pods(each):
        yield from pod["spec"].get("initContainers", []) + pod["spec"]["containers"]
    if each["kind"] in KUBERAY and "autoscalerOptions" in ray_cluster(each):
        yield ray_cluster(each)["autoscalerOptions"]


@every_pod
def test_pod_is_confined(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    user = spec["securityContext"]
    assert (user["runAsNonRoot"], user["runAsUser"], user["seccompProfile"]) == (True, 1000, {"type": "RuntimeDefault"})
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])
    # Only a head's autoscaler talks to Kubernetes. A worker with its account could stop pods.
    assert spec["automountServiceAccountToken"] is is_head(pod)
    assert spec["serviceAccountName"] == ("artsel-head" if is_head(pod) else "artsel")


@pytest.mark.parametrize("each", of_kind("CronJob", *KUBERAY), ids=name)
def test_containers_are_confined_and_have_a_place_to_write(each: dict[str, Any]) -> None:
    found = list(containers(each))
    assert found
    for container in found:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["mountPath"] for mount in container["volumeMounts"]} - {"/dev/shm"} == {"/tmp", "/home/ray"}


def test_images_are_named_by_their_digest() -> None:
    images = [each["image"] for item in OBJECTS for each in containers(item) if "image" in each]
    images += [
        RAY_UP["docker"]["image"],
        *re.findall(r"^FROM (\S+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE),
    ]
    assert len(images) == 19
    assert [image for image in images if not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []


def policies(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the network policies that select a pod with the label that KubeRay gives a head."""
    labels = {**pod["metadata"]["labels"], **({"ray.io/node-type": "head"} if is_head(pod) else {})}.items()
    specs = [policy["spec"] for policy in of_kind("NetworkPolicy")]
    return [spec for spec in specs if spec["podSelector"].get("matchLabels", {}).items() <= labels]


def may_connect(pod: dict[str, Any], port: int, to: dict[str, Any] | str) -> bool:
    """Returns whether a pod may connect to another pod of the namespace, to a namespace's pods, or to an address.

    Args:
        to: a pod; or the name of another namespace; or an IPv4 address.
    """

    def matches(peer: dict[str, Any]) -> bool:
        if isinstance(to, dict):
            labels = to["metadata"]["labels"].items()
            return "podSelector" in peer and peer["podSelector"]["matchLabels"].items() <= labels
        if not to[0].isdigit():
            return peer.get("namespaceSelector") == {"matchLabels": {"kubernetes.io/metadata.name": to}}
        block = peer.get("ipBlock", {"cidr": "0.0.0.0/32"})
        inside, *outside = (ipaddress.ip_network(each) for each in [block["cidr"], *block.get("except", [])])
        address = ipaddress.ip_address(to)
        return address in inside and not any(address in each for each in outside)

    rules = [rule for policy in policies(pod) for rule in policy.get("egress", [])]
    return any(
        any(matches(peer) for peer in rule["to"])
        and port in [each["port"] for each in rule.get("ports", [{"port": port}])]
        for rule in rules
    )


@every_pod
def test_pod_connects_to_ray_dns_and_storage_only(pod: dict[str, Any]) -> None:
    is_ray = pod["metadata"]["labels"]["app.kubernetes.io/name"] == "artsel-ray"
    (head,) = [each for source, each in PODS if source == "RayCluster/artsel" and is_head(each)]
    assert any(spec["policyTypes"] == ["Ingress", "Egress"] and "egress" not in spec for spec in policies(pod))
    assert may_connect(pod, 53, "kube-system")
    assert may_connect(pod, 8265, head)
    assert may_connect(pod, 6379, head) == is_ray
    assert may_connect(pod, 443, "52.216.0.1") == is_ray  # an object store
    assert not may_connect(pod, 80, "52.216.0.1")
    assert not may_connect(pod, 443, "169.254.169.254")  # the machine's own role
    assert not may_connect(pod, 80, "169.254.169.254")
    assert not may_connect(pod, 5432, "10.0.0.1")
    assert may_connect(pod, 443, "10.0.0.1") == is_head(pod)  # the API of Kubernetes


def test_namespace_refuses_unconfined_pods() -> None:
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}


def test_no_file_contains_a_secret() -> None:
    assert not of_kind("Secret")
    for file in [file for file in CLUSTER.rglob("*") if file.is_file() and file.suffix != ".pyc"]:
        assert not re.search(r"AKIA|(SECRET|_KEY|TOKEN)[A-Z_]*[=:] *\w", file.read_text()), file


def test_ray_up_config_is_valid() -> None:
    config = prepare_config(RAY_UP)
    validate_config(config)
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind, node in RAY_UP["available_node_types"].items():
        request = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()
        assert set(request) <= set(shape.members), kind
        assert ("InstanceMarketOptions" in request) == ("spot" in kind)
        # Ray's own default is an image of 2018, with CUDA 11.2.
        assert request["ImageId"].startswith("ami-")
        has_gpus = request["InstanceType"].startswith("g6e.")
        assert has_gpus == ("gpu" in kind)
        assert has_gpus == any("$1 < 580" in command for command in node.get("worker_setup_commands", []))
        assert has_gpus == ("--env NVIDIA_VISIBLE_DEVICES=all" in node.get("docker", {}).get("worker_run_options", []))
    assert "spot" not in RAY_UP["head_node_type"]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_dockerfile_lints_and_copies_existing_files() -> None:
    file = CLUSTER / "Dockerfile"
    linted = subprocess.run([Path(sys.executable).parent / "hadolint", file], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    # `ray up` copies files with rsync, and starts workers with ssh from inside the head's container.
    (installed,) = re.findall(r"apt-get install -y --no-install-recommends (.+) \\\n", file.read_text())
    assert {"rsync", "openssh-client"} <= set(installed.split())
    copied = re.findall(r"^COPY (.+) \S+$", file.read_text(), re.MULTILINE)
    assert len(copied) > 3
    assert [source for line in copied for source in line.split() if not (ROOT / source).exists()] == []


def test_alerts_parse_as_promql() -> None:
    rules = [rule for each in of_kind("PrometheusRule") for group in each["spec"]["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 0
    for rule in rules:
        promql_parser.parse(rule["expr"])
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"]


def nightly(arguments: list[str], folder: Path) -> list[str]:
    """Returns the command that nightly.sh runs, with `LATEST` as the latest run."""
    stub = folder / "python"
    stub.write_text('#!/bin/sh\ncase "$1" in *latest_run.py) echo LATEST;; *) printf "%s\\n" "$@";; esac\n')
    stub.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "RUN_DATE": "2026-11-22"}
    command = ["sh", str(CLUSTER / "nightly.sh"), *arguments]
    return subprocess.check_output(command, env=environment, text=True).splitlines()


def commands(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields every command of a job in cluster/: the name of its file or object, and the words after `python`."""
    for each in of_kind("RayJob", "RayCronJob"):
        program, script, *flags = shlex.split(each["spec"].get("jobTemplate", each["spec"])["entrypoint"])
        command = [script.removeprefix("/app/"), *flags]
        yield name(each), nightly(flags, folder) if program == "sh" else command
    for each in of_kind("CronJob"):
        for pod in pods(each):
            yield name(each), nightly(pod["spec"]["containers"][0]["args"][2:], folder)
    for file in [file for file in CLUSTER.rglob("*") if file.is_file() and file.suffix not in (".sh", ".py", ".pyc")]:
        text = re.sub(r"\\\n\s*", " ", file.read_text())
        for line in re.findall(r"python (jobs/\w+\.py [^\n`|;#]*)", text):
            yield file.name, shlex.split(line)
        for line in re.findall(r"(?<=sh /app/)cluster/nightly\.sh ([^\n`|;#]*)", text) if file.suffix == ".md" else []:
            yield file.name, nightly(shlex.split(line), folder)


def test_every_command_parses(tmp_path: Path) -> None:
    seen = set()
    for source, (job, *flags) in commands(tmp_path):
        seen.add(source)
        try:
            parse(config_type(Path(job).stem), flags)
        except SystemExit:
            pytest.fail(f"{source}: {job} {shlex.join(flags)}")
    rayjobs = {f"RayJob/{each}" for each in ("scoring", "training", "sweep")}
    assert rayjobs | {"RayCronJob/nightly", "CronJob/nightly", "README.md"} <= seen


def test_nightly_command(tmp_path: Path) -> None:
    job, *flags = nightly(["s3://b/a", "--model", "m"], tmp_path)
    config = parse(ScoreConfig, flags)
    assert job == "jobs/score.py"
    assert config.output == "s3://b/a/predictions/date=2026-11-22"
    assert config.requests == "s3://b/a/requests/date=2026-11-22"
    assert (config.previous, config.serving.seed) == (str(Path("LATEST").absolute()), 20261122)
    assert (config.serving.explore, config.decoding) == ("epsilon", "rank")


def test_latest_run_skips_runs_without_a_manifest(tmp_path: Path) -> None:
    predictions = f"{tmp_path}/predictions"
    assert latest_run(predictions, "2026-11-22") is None
    for date, complete in {"2026-11-19": True, "2026-11-20": True, "2026-11-21": False, "2026-11-22": True}.items():
        folder = f"{predictions}/date={date}"
        storage.write_json(f"{folder}/config.json", {})
        if complete:
            storage.write_manifest(folder, {})
    assert latest_run(predictions, "2026-11-22") == f"{predictions}/date=2026-11-20"
    assert latest_run(predictions, "2026-11-19") is None
