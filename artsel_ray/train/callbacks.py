"""What happens between a training's steps: validation, progress, sealed checkpoints, and the stop at a NaN."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from artsel_ray.train.checkpoints import seal
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.validation import validate

_PROGRESS_SECONDS = 5.0


class Validate(TrainerCallback):
    """Validates and asks for a checkpoint, every so many steps and at the end."""

    def __init__(self, trainer: Trainer, examples: TrainingExamples, checkpoint_steps: int) -> None:
        """Validates a trainer's model.

        Args:
            examples: to choose for.
            checkpoint_steps: optimizer steps between two checkpoints.
        """
        self._trainer, self._examples, self._checkpoint_steps = trainer, examples, checkpoint_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Called after each optimizer step, before a checkpoint is written."""
        is_last = state.global_step >= state.max_steps
        if is_last or state.global_step % self._checkpoint_steps == 0:
            self._trainer.log(validate(self._trainer, self._examples))
            # Logging the validation has canceled the log of the step's loss.
            control.should_save = control.should_log = True
        return control


class StopAtNonFinite(TrainerCallback):
    """Stops the training at a loss or gradient that is NaN or infinite, without a checkpoint of that step."""

    def __init__(self) -> None:
        """Starts without an error."""
        self.error = ""
        """Why the training was stopped, for the user; empty if it was not."""

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> Any:
        """Called with each step's loss, before a checkpoint is written."""
        logs: dict[str, float] = event["logs"]
        for name, key in (("loss", "loss"), ("gradient", "grad_norm")):
            value = logs.get(key, 0.0)
            if not math.isfinite(value) and not self.error:
                self.error = (
                    f"the {name} is {value} at step {state.global_step}; lower --learning-rate. "
                    "The last checkpoint before it is kept"
                )
        if self.error:
            control.should_training_stop, control.should_save = True, False
        return control


class ReportProgress(TrainerCallback):
    """Reports how far the training is, at most every few seconds, and each validation."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """Starts the clock.

        Args:
            report: shows a line to the user; called on the first worker only.
        """
        self._report = report
        self._since = self._reported = time.monotonic()
        self._first_step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after the checkpoint, if there is one, was read."""
        if state.global_step and state.is_world_process_zero:
            self._report(f"resuming from step {state.global_step:,}")

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Called with each step's loss and each validation."""
        if not state.is_world_process_zero:
            return
        logs, now, step = event["logs"], time.monotonic(), state.global_step
        if self._first_step is None:  # of this process; a resumed run does not start at 1
            self._first_step, self._since = step, now
        if "validation_ips" in logs:
            accuracy, ips = logs["validation_accuracy"], logs["validation_ips"]
            self._report(f"step {step:,}: validation accuracy {accuracy:.4f}, IPS {ips:.4f}")
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
