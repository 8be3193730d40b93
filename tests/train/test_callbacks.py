"""What happens between steps: validation, the stop at a NaN, progress, and sealed, complete checkpoints."""

import math
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest
from transformers import TrainerCallback, TrainerControl

from artsel_ray.train import callbacks
from artsel_ray.train.callbacks import (
    ReportProgress,
    SealCheckpoints,
    StopAtNonFinite,
    is_complete,
    newest_complete,
    seal,
)
from tests.support.training import TinyLlama, fit_in, logged, train_config


def test_non_finite_loss_stops_the_training_and_keeps_the_last_checkpoint(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 2:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    config = train_config(examples, tiny_llama(True), tmp_path / "T")
    fitted = fit_in(tmp_path / "scratch", config, [Breaks()])
    assert fitted.error.startswith("the loss is nan at step 3; lower --learning-rate")
    assert [folder.name for folder in (tmp_path / "scratch").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (tmp_path / "T").exists()


def test_non_finite_gradient_stops_the_training_and_its_step_leaves_no_checkpoint(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 3:
                weights = next(p for p in model.parameters() if p.requires_grad)
                weights.register_hook(lambda gradient: gradient * math.inf)

    config = train_config(examples, tiny_llama(True), tmp_path / "T")
    fitted = fit_in(tmp_path / "scratch", config, [Breaks()])
    assert math.isfinite(logged(fitted, "loss")[-1])
    assert re.match("the (gradient|validation) is (nan|inf) at step 4; lower --learning-rate", fitted.error)
    assert [folder.name for folder in (tmp_path / "scratch").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (tmp_path / "T").exists()


def test_first_non_finite_value_is_the_error() -> None:
    stop, state = StopAtNonFinite(), SimpleNamespace(global_step=3)
    control = stop.on_log(None, state, TrainerControl(should_save=True), logs={"loss": 0.5, "grad_norm": 1.0})
    assert (stop.error, control.should_training_stop, control.should_save) == ("", False, True)
    control = stop.on_log(None, state, control, logs={"loss": math.inf, "grad_norm": math.nan})
    assert stop.error.startswith("the loss is inf at step 3")
    assert (control.should_training_stop, control.should_save) == (True, False)


def test_progress_reports_validations_and_seldom_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    progress = ReportProgress(lines.append)

    def log(step: int, seconds: float, **logs: float) -> None:
        clock[0] = seconds
        state = SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)
        progress.on_log(None, state, None, logs=logs)

    log(3, 4.0, loss=1.0)  # resumed: the first step of this process
    log(4, 8.0, loss=0.5)  # 4 seconds a step, 6 steps left
    log(5, 9.0, loss=0.4)
    log(5, 9.0, validation_accuracy=0.25, validation_ips=1.5)
    assert lines == ["step 4 of 10, loss 0.5000, 24 s left", "step 5: validation accuracy 0.2500, IPS 1.5000"]


def test_only_the_first_worker_reports() -> None:
    lines: list[str] = []
    progress, state = ReportProgress(lines.append), SimpleNamespace(global_step=3, max_steps=9)
    for state.is_world_process_zero in (False, True):
        progress.on_train_begin(None, state, None)
        progress.on_log(None, state, None, logs={"validation_accuracy": 0.0, "validation_ips": 0.0})
    assert lines == ["resuming from step 3", "step 3: validation accuracy 0.0000, IPS 0.0000"]


def test_checkpoint_without_files_of_this_worker_is_not_sealed(tmp_path: Path) -> None:
    arguments = SimpleNamespace(output_dir=str(tmp_path), process_index=1, world_size=2)
    SealCheckpoints().on_save(arguments, SimpleNamespace(global_step=2), None)
    assert not list(tmp_path.iterdir())
    (tmp_path / "checkpoint-2").mkdir()
    SealCheckpoints().on_save(arguments, SimpleNamespace(global_step=2), None)
    assert (tmp_path / "checkpoint-2/files-1.json").is_file()


LOCAL = pafs.LocalFileSystem()


def checkpoint(folder: Path, workers: int = 2) -> Path:
    """A checkpoint of workers that have written one file each."""
    for rank in range(workers):
        own = folder / f"of-{rank}"
        own.mkdir(parents=True)
        (own / f"state-{rank}.bin").write_bytes(b"12345678")
        seal(own, rank, workers)
        for file in own.iterdir():  # as Ray merges the workers' folders
            file.rename(folder / file.name)
        own.rmdir()
    return folder


def test_checkpoint_is_complete_with_all_lists_and_files(tmp_path: Path) -> None:
    assert is_complete(LOCAL, str(checkpoint(tmp_path / "c")))
    assert not is_complete(LOCAL, str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert not is_complete(LOCAL, str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["state-1.bin", "files-1.json"])
@pytest.mark.parametrize("size", [0, 4, None])
def test_missing_or_cut_file_makes_it_incomplete(name: str, size: int | None, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "c") / name
    if size is None:
        file.unlink()
    else:
        os.truncate(file, size)
    assert not is_complete(LOCAL, str(tmp_path / "c"))


def test_newest_complete_checkpoint_is_taken_and_skipped_ones_are_reported(tmp_path: Path) -> None:
    paths = [str(checkpoint(tmp_path / name)) for name in ("3", "2", "1")]
    lines: list[str] = []
    assert newest_complete(LOCAL, paths, lines.append) == paths[0]
    assert newest_complete(LOCAL, [], lines.append) is None
    assert lines == []
    os.truncate(tmp_path / "3/state-0.bin", 1)
    assert newest_complete(LOCAL, paths, lines.append) == paths[1]
    assert newest_complete(LOCAL, paths[:1], lines.append) is None
    assert lines == [
        "1 incomplete checkpoint(s), skipped for an earlier one",
        "1 incomplete checkpoint(s) and no complete one: training starts from the beginning",
    ]
