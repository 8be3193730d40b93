"""Training on Ray Train: jobs, workers and nodes that are lost, and what scores afterwards."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster
from safetensors.numpy import load_file

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.schema import ARTWORKS, REQUESTS, TITLES
from artsel_ray.train.job import train
from artsel_ray.train.ray_train import training_failed
from artsel_ray.train.settings import TrainConfig
from tests.support.training import TinyLlama, changed, losses_of, train_config

ROOT = Path(__file__).parents[2]


def config_for(examples: str, model: str, output: Path | str, **changes: Any) -> TrainConfig:
    flags: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 30, "checkpoint_steps": 3}
    return train_config(examples, model, output, **flags | changes)


def test_failure_is_the_last_line_of_its_cause() -> None:
    error = training_failed("Traceback\n  somewhere\nRuntimeError: out of memory\n")
    assert str(error) == (
        "the training failed: RuntimeError: out of memory; the same command resumes from its last checkpoint"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_killed_job_resumes_from_its_last_complete_checkpoint(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    config = config_for(examples, tiny_llama(False), tmp_path / "T", workers=1, max_steps=36)
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    checkpoints = tmp_path / "T/checkpoints/train"

    def known() -> int:
        """The checkpoints that Ray would resume from."""
        try:
            return len(storage.read_json(str(checkpoints / "checkpoint_manager_snapshot.json"))["checkpoint_results"])
        except InputError:  # not yet, or just now
            return 0

    with subprocess.Popen(command_of(config), env=environment) as job:
        while job.poll() is None and known() < 2:
            time.sleep(0.05)
        job.kill()
    assert job.returncode == -signal.SIGKILL
    # Its workers end with it.
    while worker_processes():
        time.sleep(0.1)
    snapshot = storage.read_json(str(checkpoints / "checkpoint_manager_snapshot.json"))
    newest = checkpoints / snapshot["latest_checkpoint_result"]["checkpoint_dir_name"] / "checkpoint/optimizer.pt"
    os.truncate(newest, newest.stat().st_size // 2)
    train(config)
    printed = capsys.readouterr().out
    assert "1 incomplete checkpoint(s), skipped for an earlier one" in printed
    assert int(re.findall(r"resuming from step (\d+)", printed)[0]) >= 3
    one = changed(config, output=str(tmp_path / "one"), workers=0)
    train(one)
    np.testing.assert_allclose(losses_of(config.output), losses_of(one.output), atol=1e-3)
    ours, theirs = (load_file(f"{uri}/adapter/adapter_model.safetensors") for uri in (config.output, one.output))
    for name, weights in ours.items():
        np.testing.assert_allclose(weights, theirs[name], atol=1e-3)


def command_of(config: TrainConfig) -> list[str]:
    values = resolved(config).items()
    flags = {name: value for name, value in values if value is not None and not isinstance(value, bool)}
    return [sys.executable, str(ROOT / "jobs/train.py"), *(f"--{k.replace('_', '-')}={v}" for k, v in flags.items())]


def worker_processes() -> list[int]:
    return [process.pid for process in psutil.process_iter() if "RayTrainWorker" in title_of(process)]


def title_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def workers_of(machines: list[Any]) -> dict[int, Any]:
    """The workers' processes, and the node that each is on."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in machines}
    found = {}
    for pid in worker_processes():
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(pid).ppid()
            if parent in raylets:
                found[pid] = raylets[parent]
    return found


def lose_process(cluster: Cluster, machines: list[Any]) -> None:
    os.kill(next(iter(workers_of(machines))), signal.SIGKILL)


def lose_node(cluster: Cluster, machines: list[Any]) -> None:
    node = next(iter(workers_of(machines).values()))
    machines.remove(node)
    cluster.remove_node(node, allow_graceful=False)


def wait_for(true: Callable[[], bool], job: subprocess.Popen[bytes]) -> None:
    while not true():
        assert job.poll() is None, "the job ended before that"
        time.sleep(0.1)


@pytest.fixture
def nodes(s3_credentials: None) -> Iterator[tuple[Cluster, list[Any]]]:
    """A cluster of its own: a head without CPUs, and three nodes of one CPU."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster, [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.shutdown()


@pytest.mark.slow
def test_training_survives_a_lost_process_and_a_lost_node_and_its_model_scores(
    nodes: tuple[Cluster, list[Any]], bucket: str, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    cluster, machines = nodes
    config = config_for(examples, tiny_llama(False), storage.join(bucket, "T"), workers=2)

    def checkpoints() -> int:
        files = storage.find_files(storage.join(config.output, "checkpoints"), "")
        return len([file for file in files if "/trainer_state.json" in file])

    with subprocess.Popen(command_of(config), env={**os.environ, "RAY_ADDRESS": cluster.address}) as job:
        for lose in (lose_process, lose_node):
            wait_for(lambda: checkpoints() > 0 and len(workers_of(machines)) == 2, job)
            before = workers_of(machines).keys()
            lose(cluster, machines)
            while before & workers_of(machines).keys():
                time.sleep(0.1)
    assert job.returncode == 0
    assert len(machines) == 2
    train(changed(config, output=str(tmp_path / "one"), workers=0))
    losses = [losses_of(uri) for uri in (config.output, str(tmp_path / "one"))]
    assert len(losses[0]) == 30
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)

    # What was trained scores without any flag of the prompt.
    rows = read_table(f"{examples}/validation", "examples")
    artworks = [
        {"artwork_id": each["artwork_id"], "title_id": "t", "caption": each["caption"]}
        for each in rows["candidates"][0].as_py()
    ]
    world = tmp_path / "W"
    write_world(world, artworks, rows.to_pylist())
    tables = [f"--{name}={world / name}" for name in ("requests", "titles", "artworks")]
    command = [sys.executable, str(ROOT / "jobs/score.py"), *tables, f"--model={config.output}", "--decoding=rank"]
    found = []
    for engine in ("vllm", "transformers"):
        own = {**os.environ, "RAY_ADDRESS": "local"}
        subprocess.run([*command, f"--engine={engine}", f"--output={tmp_path / engine}"], check=True, env=own)
        found.append(read_table(str(tmp_path / engine), "predictions"))
    assert found[0].num_rows == len(rows)
    assert found[0]["artwork_id"].equals(found[1]["artwork_id"])
    np.testing.assert_allclose(found[0]["probability"], found[1]["probability"], atol=1e-3)


def write_world(world: Path, artworks: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    title = {"title_id": "t", "name": "Up", "genres": ["Comedy"]}
    requests = [{"user_id": row["example_id"], "history": row["history"], "title_ids": ["t"]} for row in rows]
    tables = {"titles": ([title], TITLES), "artworks": (artworks, ARTWORKS), "requests": (requests, REQUESTS)}
    for name, (content, schema) in tables.items():
        storage.write_table(str(world / name / "a.parquet"), pa.Table.from_pylist(content, schema), name)
