"""What happens between a training's steps: validation, progress, sealed checkpoints, and the stop at a NaN."""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from transformers import Trainer, TrainerCallback

from artsel_ray import storage
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.evaluation.held_out import shown_metrics
from artsel_ray.s3 import open_file
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.validation import VALIDATION, Chooser, choose, validate

VALIDATED_STEP = "validated_step"  # a checkpoint's metrics may be of an earlier step's validation
_LIST = "files-"
_PROGRESS_SECONDS = 5.0


class Validate(TrainerCallback):
    """Validates and asks for a checkpoint, every so many steps; at the end only asks.

    The last validation is of what was exported, and only of a sharded model is it done here.
    """

    def __init__(
        self, trainer: Trainer, examples: TrainingExamples, checkpoint_steps: int, choose: Chooser = choose
    ) -> None:
        self._trainer, self._examples, self._checkpoint_steps = trainer, examples, checkpoint_steps
        self._choose = choose

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Called after each optimizer step, before a checkpoint is written."""
        is_last, is_sharded = state.global_step >= state.max_steps, self._trainer.is_fsdp_enabled
        if is_last or state.global_step % self._checkpoint_steps == 0:
            if is_sharded or not is_last:
                model: Any = self._trainer.model
                engine = TorchEngine(model, self._examples.tokenizer.placeholders)
                validated = validate(engine, self._examples, is_sharded, self._choose)
                self._trainer.log({**validated, VALIDATED_STEP: state.global_step})
            # Logging the validation has canceled the log of the step's loss.
            control.should_save = control.should_log = True
        return control


class StopAtNonFinite(TrainerCallback):
    """Stops the training at a loss, gradient or validation that is no number, without a checkpoint of that step."""

    def __init__(self) -> None:
        self.error = ""
        """Why the training was stopped, for the user; empty if it was not."""

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> Any:
        """Called with each step's loss, before a checkpoint is written."""
        logs: dict[str, float] = event["logs"]
        for name, key in (("loss", "loss"), ("gradient", "grad_norm"), ("validation", "validation_accuracy")):
            value = logs.get(key, 0.0)
            if not math.isfinite(value) and not self.error:
                advice = "lower --learning-rate. The last checkpoint before it is kept"
                self.error = f"the {name} is {value} at step {state.global_step}; {advice}"
        if self.error:
            control.should_training_stop, control.should_save = True, False
        return control


class ReportProgress(TrainerCallback):
    """Reports how far the training is, at most every few seconds, each validation, and first the `notices`."""

    def __init__(self, report: Callable[[str], None], notices: Sequence[str] = ()) -> None:
        self._report = report  # shows a line to the user; called on the first worker only
        self._notices = notices
        self._since = self._reported = time.monotonic()
        self._first_step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after the checkpoint, if there is one, was read."""
        if not state.is_world_process_zero:
            return
        for notice in self._notices:
            self._report(notice)
        if state.global_step:
            self._report(f"resuming from step {state.global_step:,}")

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Called with each step's loss and each validation."""
        if not state.is_world_process_zero:
            return
        logs, now, step = event["logs"], time.monotonic(), state.global_step
        if self._first_step is None:  # of this process; a resumed run does not start at 1
            self._first_step, self._since = step, now
        if "validation_ips" in logs:
            self._report(f"step {step:,}: validation {shown_metrics(logs, VALIDATION)}")
        elif "loss" in logs and now - self._reported > _PROGRESS_SECONDS and step > self._first_step:
            self._reported = now
            left = (now - self._since) / (step - self._first_step) * (state.max_steps - step)
            self._report(f"step {step:,} of {state.max_steps:,}, loss {logs['loss']:.4f}, {left:,.0f} s left")


class SealCheckpoints(TrainerCallback):
    """Lists each checkpoint's files in it, so that an incomplete one is recognized."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after a checkpoint was written, before it goes to Ray."""
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if folder.is_dir():  # Trainer makes it only on workers that have something to write
            seal(folder, args.process_index, args.world_size)


def seal(folder: Path, rank: int, workers: int) -> None:
    """Lists what this worker has written into its folder of a checkpoint; Ray merges the workers' folders."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(_LIST)]
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    storage.write_json(str(folder / f"{_LIST}{rank}.json"), {"workers": workers, "sizes": sizes})


def is_complete(fs: pafs.FileSystem, path: str) -> bool:
    """Tells whether all workers' lists are there, and every listed file with its listed size."""
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    found = {entry.path[len(path) :].lstrip("/"): entry.size for entry in entries if entry.is_file}
    try:
        lists = [_read(fs, f"{path}/{name}") for name in found if name.startswith(_LIST)]
        listed = [entry for each in lists for entry in each["sizes"].items()]
        return bool(lists) and len(lists) == lists[0]["workers"] and all(found.get(file) == n for file, n in listed)
    except (ValueError, KeyError, TypeError):  # a list is itself cut short
        return False


def _read(fs: pafs.FileSystem, path: str) -> dict[str, Any]:
    with open_file(fs, path) as file:
        return json.loads(file.read())


def newest_complete(fs: pafs.FileSystem, newest_first: Iterable[str], report: Callable[[str], None]) -> str | None:
    """Returns the first path whose checkpoint is complete, or None; reports in one line what was skipped."""
    incomplete = 0
    for path in newest_first:
        if is_complete(fs, path):
            if incomplete:
                report(f"{incomplete} incomplete checkpoint(s), skipped for an earlier one")
            return path
        incomplete += 1
    if incomplete:
        report(f"{incomplete} incomplete checkpoint(s) and no complete one: training starts from the beginning")
    return None
