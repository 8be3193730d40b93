"""What Ray Train does when its workers do not start, and when somebody presses Ctrl-C."""

import inspect
import signal
from pathlib import Path

import pytest
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from artsel_ray.runtime import ray_train
from artsel_ray.runtime.ray_train import Trainer, cause, restarts


@pytest.mark.usefixtures("ray_cluster")
def test_workers_that_cannot_start_end_a_training_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    monkeypatch.setattr(ray_train, "MAX_STARTS", 1)
    trainer = Trainer(
        lambda: None,
        scaling_config=ScalingConfig(num_workers=3, resources_per_worker={"CPU": 1}),  # there are two CPUs
        run_config=RunConfig(name="t", storage_path=str(tmp_path), failure_config=restarts(3)),
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ray.train.TrainingFailedError) as failed:
        trainer.fit()
    line = cause(failed.value, 3)
    assert line.startswith("3 worker(s) did not start in 2 tries: ")
    assert line.endswith("Ask for fewer --workers")
    assert "\n" not in line
    assert "RAY_TRAIN" not in line
    assert signal.getsignal(signal.SIGINT) == before


def test_ray_train_takes_ctrl_c_where_the_trainer_prevents_it() -> None:
    assert "self._register_sigint_handler(" in inspect.getsource(inspect.getmodule(TorchTrainer.fit))  # type: ignore
    assert cause(RuntimeError("Traceback\n  somewhere\nRuntimeError: no disk\n"), 2) == "RuntimeError: no disk"
