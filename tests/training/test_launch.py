"""The job on Ray Train: wrong flags, two workers of which one is killed, and what scores afterwards."""

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from artsel_ray import storage
from artsel_ray.config import TrainConfig
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.training.launch import train

ROOT = Path(__file__).parent.parent.parent
Tiny = Callable[[bool], str]


def config_for(examples: str, model: str, output: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        method="sft", examples=examples, model=model, output=str(output), learning_rate=1e-3, max_steps=30,
        batch_size=4, micro_batch=2, checkpoint_steps=3, validation_size=4, lora_rank=4, workers=0,
    )  # fmt: skip
    return replace(config, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"micro_batch": 3}, "--batch-size 4 is no multiple of --micro-batch times --workers, 3"),
        ({"workers": 4}, "--batch-size 4 is no multiple of --micro-batch times --workers, 8"),
        ({"max_steps": 0}, "--max-steps is 0"),
        ({"examples": "/nowhere"}, "/nowhere/train"),
        ({"model": "/nowhere"}, "model '/nowhere' is neither"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    changes: dict[str, Any], named: str, examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        train(replace(config_for(examples, tiny_llama(True), tmp_path / "T"), **changes))


def test_a_finished_training_is_kept_and_another_is_refused(
    examples: str, tiny_llama: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=2)
    metrics = train(config)
    assert set(metrics) == {"loss", "validation_accuracy", "validation_ips"}
    card = (tmp_path / "T/README.md").read_text()
    assert f"| loss | {metrics['loss']:.4f} |" in card
    assert "<svg" in (tmp_path / "T/loss.svg").read_text()
    capsys.readouterr()
    assert train(config) == metrics
    assert "complete already" in capsys.readouterr().out
    with pytest.raises(InputError, match="differs in: learning_rate"):
        train(replace(config, learning_rate=1e-4))


def test_a_disk_that_is_full_is_one_clear_line_and_the_same_command_goes_on(
    examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=4, checkpoint_steps=2)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Checkpoints are smaller than this, the merged model is larger.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
    try:
        with pytest.raises(InputError, match=r"the training failed: .*; the same command resumes") as caught:
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert "\n" not in str(caught.value)
    checkpoint = tmp_path / "T/checkpoints/checkpoint-4/trainer_state.json"
    written = checkpoint.stat().st_mtime_ns
    assert storage.read_manifest(config.output) is None
    train(config)
    assert checkpoint.stat().st_mtime_ns == written
    assert load(config.output).path == tmp_path / "T/merged"


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (["checkpoint-4"], "1 checkpoint(s) not whole, passed over for an earlier one\ngoing on from step 2\n"),
        (["checkpoint-2", "checkpoint-4"], "2 checkpoint(s), none of them whole: training starts anew\n"),
    ],
    ids=["newest", "all"],
)
@pytest.mark.parametrize("cut", [True, False], ids=["cut short", "missing"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(
    damaged: list[str], said: str, cut: bool, examples: str, tiny_llama: Tiny, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=4, checkpoint_steps=2)
    train(config)
    losses = losses_of(config.output)
    for name in damaged:
        file = tmp_path / "T/checkpoints" / name / "adapter_model.safetensors"
        if cut:
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.unlink()
    (tmp_path / "T/_manifest.json").unlink()
    capsys.readouterr()
    train(config)
    assert said in capsys.readouterr().out
    np.testing.assert_allclose(losses_of(config.output), losses, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_job_goes_on_from_its_last_whole_checkpoint_and_ends_as_an_uninterrupted_one(
    examples: str, tiny_llama: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    config = config_for(examples, tiny_llama(False), tmp_path / "T", workers=1, max_steps=36)
    flags = {name: value for name, value in vars(config).items() if value is not None and not isinstance(value, bool)}
    command = [sys.executable, str(ROOT / "jobs/train.py"), *(f"--{k.replace('_', '-')}={v}" for k, v in flags.items())]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    checkpoints = tmp_path / "T/checkpoints/train"

    def known() -> int:
        """The checkpoints that Ray would go on from."""
        try:
            return len(storage.read_json(str(checkpoints / "checkpoint_manager_snapshot.json"))["checkpoint_results"])
        except InputError:  # not yet, or just now
            return 0

    with subprocess.Popen(command, env=environment) as job:
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
    told = capsys.readouterr().out
    assert "1 checkpoint(s) not whole, passed over for an earlier one" in told
    assert int(re.findall(r"going on from step (\d+)", told)[0]) >= 3
    one = replace(config, output=str(tmp_path / "one"), workers=0)
    train(one)
    np.testing.assert_allclose(losses_of(config.output), losses_of(one.output), atol=1e-3)
    ours, theirs = (load_file(f"{uri}/adapter/adapter_model.safetensors") for uri in (config.output, one.output))
    for name, weights in ours.items():
        np.testing.assert_allclose(weights, theirs[name], atol=1e-3)


def losses_of(output: str) -> list[float]:
    history = storage.read_json(storage.join(output, "summary.json"))["history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def worker_processes() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_end_as_one_process_would_and_the_model_scores(
    ray_cluster: None, bucket: str, examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    config = replace(config_for(examples, tiny_llama(False), tmp_path, workers=2), output=storage.join(bucket, "T"))
    killed: list[int] = []

    def kill() -> None:
        checkpoints = storage.join(config.output, "checkpoints")
        while not any("/trainer_state.json" in file for file in storage.find_files(checkpoints, "")):
            time.sleep(0.2)
        killed.append(worker_processes()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    train(config)
    killer.join(timeout=5)
    assert killed
    train(replace(config, output=str(tmp_path / "one"), workers=0))
    losses = [losses_of(uri) for uri in (config.output, str(tmp_path / "one"))]
    assert len(losses[0]) == 30
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-3)

    # What was trained scores without any flag of the prompt.
    rows = storage.read_table(f"{examples}/validation", "examples")
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
        subprocess.run([*command, f"--engine={engine}", f"--output={tmp_path / engine}"], check=True)
        found.append(storage.read_table(str(tmp_path / engine), "predictions"))
    assert found[0].num_rows == len(rows)
    assert found[0]["artwork_id"].equals(found[1]["artwork_id"])
    np.testing.assert_allclose(found[0]["probability"], found[1]["probability"], atol=1e-3)


def write_world(world: Path, artworks: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    from artsel_ray.schema import ARTWORKS, REQUESTS, TITLES

    title = {"title_id": "t", "name": "Up", "genres": ["Comedy"]}
    requests = [{"user_id": row["example_id"], "history": row["history"], "title_ids": ["t"]} for row in rows]
    tables = {"titles": ([title], TITLES), "artworks": (artworks, ARTWORKS), "requests": (requests, REQUESTS)}
    for name, (content, schema) in tables.items():
        storage.write_table(str(world / name / "a.parquet"), pa.Table.from_pylist(content, schema), name)
