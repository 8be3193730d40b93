"""The job in one process: wrong flags, resuming, and what is published."""

import os
import pickle
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.train.job import final_metrics, train, training_of
from artsel_ray.train.loop import Fitted
from artsel_ray.train.settings import TrainConfig
from tests.support.training import TinyLlama, changed, losses_of, train_config


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
        ({"fsdp": True}, "--fsdp shards a model over the GPUs of several workers, and --workers is 0"),
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
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
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


def test_last_value_of_each_metric_is_final() -> None:
    first = {"step": 1, "loss": 0.5, "validation_accuracy": 0.1, "validation_ips": 1.0}
    assert final_metrics([first, {"step": 2, "loss": 0.25}]) == {
        "loss": 0.25,
        "validation_accuracy": 0.1,
        "validation_ips": 1.0,
    }


def test_what_travels_to_and_from_workers_can_be_pickled(examples: str, tmp_path: Path) -> None:
    training = training_of(config_for(examples, "smollm2", tmp_path, layout="user_first"))
    for value in (training, Fitted([{"step": 1.0}], "", 2)):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
