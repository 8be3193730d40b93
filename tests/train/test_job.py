"""The job in this process and on Ray: wrong flags, lost jobs, workers and nodes, resuming, and what is published."""

import contextlib
import os
import re
import resource
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
import pyarrow.parquet as pq
import pytest
import torch
from ray.cluster_utils import Cluster
from safetensors.numpy import load_file

from artsel_ray import storage
from artsel_ray.config import LIMIT_FLAGS, resolved
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model
from artsel_ray.schema import ARTWORKS, EXAMPLES, REQUESTS, TITLES
from artsel_ray.train.job import NOT_IDENTITY, as_it_began, begin_training, train, training_failed
from artsel_ray.train.settings import TrainConfig
from tests.support.training import TinyLlama, changed, example_row, losses_of, train_config, write_half_base


def config_for(examples: str, model: str, output: Path | str, **changes: Any) -> TrainConfig:
    flags: dict[str, Any] = {"learning_rate": 1e-3, "max_steps": 30, "checkpoint_steps": 3}
    return train_config(examples, model, output, **flags | changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.0}, "--learning-rate is 0.0; it must be more than 0"),
        ({"learning_rate": -1.0}, "--learning-rate is -1.0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"micro_batch": 3}, "--batch-size is 4; it must be a multiple of --micro-batch times --workers, 3"),
        ({"workers": 4}, "--batch-size is 4; it must be a multiple of --micro-batch times --workers, 8"),
        ({"max_steps": 0}, "--max-steps is 0; it must be at least 1"),
        ({"fsdp": True}, "--fsdp needs at least 2 workers, and --workers is 0"),
        ({"output": "s3://bucket/T"}, "--output is s3://bucket/T; with --workers 0"),
        ({"examples": "/nowhere"}, "/nowhere/train"),
        ({"model": "/nowhere"}, "model '/nowhere' is neither"),
    ],
)
def test_wrong_input_is_one_clear_line(
    changes: dict[str, Any], named: str, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        train(changed(config_for(examples, tiny_llama(True), tmp_path / "T"), **changes))


def test_finished_training_is_kept_and_another_one_is_refused(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        train(changed(config, learning_rate=1e-4))


def test_fsdp_is_part_of_a_trainings_identity_and_where_it_runs_is_not(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", workers=2)
    later = {"output", "workers", "fsdp", "gpus_per_worker", "export_merged", "weight_by_propensity", "max_weight"}
    later |= {"group_size", "negatives", "image_root", "prior", "prior_in_loss", *LIMIT_FLAGS}
    earlier = {name: value for name, value in resolved(config).items() if name not in later}
    earlier |= {"model": load(config.model).model_id, "max_model_length": 8192}
    storage.write_json(str(tmp_path / "T/config.json"), {"run": earlier})
    storage.write_manifest(str(tmp_path / "T"), {"metrics": {"loss": 1.0}})
    # A run of an earlier version is found complete, on other devices too.
    assert train(changed(config, workers=0, gpus_per_worker=1)) == {"loss": 1.0}
    with pytest.raises(InputError, match="holds another run, which differs in: fsdp; "):
        train(changed(config, fsdp=True))
    storage.write_json(str(tmp_path / "T/config.json"), {"run": {**earlier, "fsdp": True}})
    with pytest.raises(InputError, match="holds another run, which differs in: fsdp; "):
        train(config)


def test_checkpoint_of_fsdp_is_refused_without_it(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=2, checkpoint_steps=2)
    train(config)
    (tmp_path / "T/_manifest.json").unlink()
    # What accelerate writes instead of the adapter's file.
    (tmp_path / "T/checkpoints/checkpoint-2/pytorch_model_fsdp_0").mkdir()
    with pytest.raises(InputError, match=r"the last checkpoint in .* was made with --fsdp; train on as it began"):
        train(config)


def test_mlflow_gets_each_step_and_validation(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "artworks")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # instead of a server
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=4, checkpoint_steps=2)
    metrics = train(config)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("artworks")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("T", "FINISHED")
    assert [each.step for each in client.get_metric_history(run.info.run_id, "validation_ips")] == [2, 4]
    losses = [each.value for each in client.get_metric_history(run.info.run_id, "loss")]
    assert losses == pytest.approx(losses_of(config.output))
    assert run.data.metrics["validation_accuracy"] == metrics["validation_accuracy"]


def test_full_disk_is_one_clear_line_and_the_same_command_resumes(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=4, checkpoint_steps=2)
    load(config.model)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Checkpoints are smaller than this, the base with its trained rows is larger.
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
    assert storage.read_manifest(config.output) is not None


@pytest.mark.parametrize(
    ("damaged", "reported"),
    [
        (["checkpoint-4"], "1 incomplete checkpoint(s), skipped for an earlier one\nresuming from step 2\n"),
        (
            ["checkpoint-2", "checkpoint-4"],
            "2 incomplete checkpoint(s) and no complete one: training starts from the beginning\n",
        ),
    ],
    ids=["newest", "all"],
)
@pytest.mark.parametrize("cut", [True, False], ids=["cut short", "missing"])
def test_incomplete_checkpoint_is_skipped(
    damaged: list[str], reported: str, cut: bool, examples: str, tiny_llama: TinyLlama, tmp_path: Path,
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
    assert reported in capsys.readouterr().out
    np.testing.assert_allclose(losses_of(config.output), losses, atol=1e-3)


def test_missing_mlflow_is_one_clear_line(examples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setattr("artsel_ray.train.job.is_mlflow_available", lambda: False)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is set and MLflow is not installed"):
        train(config_for(examples, "smollm2", tmp_path / "T"))


def test_merged_model_is_exported_on_request_unless_its_number_format_loses_the_training(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=2)
    train(config)
    assert not (tmp_path / "T/merged").exists()
    train(changed(config, export_merged=True))  # of a finished training too
    summary = storage.read_json(f"{config.output}/summary.json")
    assert summary["merge_loss"] < 1e-3
    assert "merging into float32 loses 0.0" in capsys.readouterr().out
    merged, ours = (
        read_model(path, torch.float32).state_dict() for path in (tmp_path / "T/merged", load(config.output).path)
    )
    assert all(torch.equal(merged[name], ours[name]) for name in ours)

    base = write_half_base(tmp_path / "base", tiny_llama(True))
    half = changed(config, model=base, output=str(tmp_path / "T2"), learning_rate=1e-6, export_merged=True)
    metrics = train(half)
    assert set(metrics) == {"loss", "validation_accuracy", "validation_ips"}
    summary = storage.read_json(f"{half.output}/summary.json")
    assert summary["merge_loss"] > 0.5
    assert not (tmp_path / "T2/merged").exists()
    assert re.search(
        r"warning: merging into bfloat16 loses \d+\.\d+% of what LoRA has changed", capsys.readouterr().out
    )


def test_weighting_belongs_to_the_identity_only_where_it_is_on(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T")
    run = storage.join(begin_training(resolved(config), NOT_IDENTITY).output, "config.json")
    assert not {"weight_by_propensity", "max_weight"} & storage.read_json(run)["run"].keys()
    weighted = changed(config, weight_by_propensity=True, max_weight=5.0)
    with pytest.raises(InputError, match="differs in: max_weight, weight_by_propensity"):
        begin_training(resolved(weighted), NOT_IDENTITY)
    begin_training(resolved(changed(weighted, output=str(tmp_path / "W"))), NOT_IDENTITY)
    with pytest.raises(InputError, match="differs in: max_weight, weight_by_propensity"):
        begin_training(resolved(changed(config, output=str(tmp_path / "W"))), NOT_IDENTITY)


def test_casts_of_examples_are_reported_where_the_job_starts(
    tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "validation"):
        (tmp_path / "E" / split).mkdir(parents=True)
        table = pa.Table.from_pylist([example_row(1)], EXAMPLES)
        labels = table["label"].cast(pa.float64())  # as pandas makes them where one was missing
        table = table.set_column(table.schema.get_field_index("label"), "label", labels)
        pq.write_table(
            table.drop_columns(["rationale"]).append_column("rationale", pa.array([7])),
            f"{tmp_path}/E/{split}/a.parquet",
        )
    config = config_for(str(tmp_path / "E"), tiny_llama(True), tmp_path / "T")
    begin_training(resolved(config), NOT_IDENTITY)
    # Rationales are not read.
    assert (
        capsys.readouterr().out == f"examples: column 'label' is cast from double to {EXAMPLES.field('label').type}\n"
    )
    begin_training(resolved(changed(config, reason=True, output=str(tmp_path / "R"))), NOT_IDENTITY)
    assert capsys.readouterr().out == "examples: column 'rationale' is cast from int64 to string\n"


def test_training_does_not_go_on_with_other_examples(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    files = [tmp_path / "E" / split / "a.parquet" for split in ("train", "validation")]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([example_row(number)], EXAMPLES), file)
    flags = resolved(config_for(str(tmp_path / "E"), tiny_llama(True), tmp_path / "T"))
    begin_training(flags, NOT_IDENTITY)
    begin_training(flags, NOT_IDENTITY)
    pq.write_table(pa.Table.from_pylist([example_row(2), example_row(3)], EXAMPLES), files[1])
    with pytest.raises(InputError, match="differs in: example_files"):
        begin_training(flags, NOT_IDENTITY)
    known = storage.read_json(f"{tmp_path}/T/config.json")
    del known["run"]["example_files"]  # as an earlier version wrote it
    storage.write_json(f"{tmp_path}/T/config.json", known)
    begin_training(flags, NOT_IDENTITY)


def test_training_does_not_go_on_with_another_template_or_schedule(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = resolved(config_for(examples, tiny_llama(True), tmp_path / "T"))
    path = storage.join(begin_training(flags, NOT_IDENTITY).output, "config.json")
    begun = storage.read_json(path)
    for name, other in (("frame", "0" * 32), ("schedule", {"warmup_steps": 3})):
        storage.write_json(path, begun | {"run": begun["run"] | {name: other}})
        with pytest.raises(InputError, match=f"differs in: {name}"):
            begin_training(flags, NOT_IDENTITY)
    capsys.readouterr()
    # As an earlier version wrote it.
    earlier = {name: value for name, value in begun["run"].items() if name not in ("frame", "schedule")}
    storage.write_json(path, begun | {"run": earlier})
    begin_training(flags, NOT_IDENTITY)
    assert "earlier version, perhaps with other learning rates, began" in capsys.readouterr().out
    storage.write_manifest(flags["output"], {})
    begin_training(flags, NOT_IDENTITY)
    assert capsys.readouterr().out == ""


def test_training_that_began_without_groups_goes_on_without(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T")
    assert as_it_began(config) is config
    begin_training(resolved(changed(config, group_size=1)), NOT_IDENTITY)  # the identity of earlier versions
    assert "group_size" not in storage.read_json(f"{tmp_path}/T/config.json")["run"]
    begin_training(resolved(as_it_began(config)), NOT_IDENTITY)
    with pytest.raises(InputError, match="differs in: group_size"):
        begin_training(resolved(config), NOT_IDENTITY)


ROOT = Path(__file__).parents[2]


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
