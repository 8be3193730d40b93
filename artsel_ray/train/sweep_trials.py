"""The results of a sweep's trials: the records that a resumed sweep trusts, and the callbacks that write them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.train.job import METRICS

TRIALS, RECORD = "trials", "trial.json"
Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended: a row of the table of trials."""

    learning_rate: float
    status: Status
    """`stopped` is a trial that ASHA ended early."""
    validation_ips: float | None = None
    validation_accuracy: float | None = None
    loss: float | None = None
    step: int | None = None
    """The last step that was validated."""
    seconds: float = 0.0
    error: str | None = None
    """Why it failed."""


def trial_output(output: str, rate: float) -> str:
    """Returns where a trial's training goes."""
    return storage.join(output, TRIALS, str(rate))


def read_record(output: str, rate: float) -> TrialRecord | None:
    """Returns the record of a trial, or None if it has not ended."""
    trained = trial_output(output, rate)
    # A manifest says that the training has finished, whatever was recorded before.
    if storage.read_manifest(trained) is not None:
        summary = storage.read_json(storage.join(trained, "summary.json"))
        step = max(entry["step"] for entry in summary["history"])
        metrics = {name: summary[name] for name in METRICS}
        return TrialRecord(rate, "finished", **metrics, step=step, seconds=summary["seconds"])
    ended = storage.join(trained, RECORD)
    return TrialRecord(**storage.read_json(ended)) if storage.exists(ended) else None


def failure_of(traceback: str) -> str:
    """Returns why a trial failed, in one line.

    An `InputError`'s message is for users. Of any other error only the type is shown, for its message may hold data.
    """
    lines = traceback.strip().splitlines() or ["no cause is known"]
    for line in reversed(lines):
        kind, _, message = line.partition(": ")
        if kind == f"{InputError.__module__}.{InputError.__name__}":
            return message
    return f"{lines[-1].partition(': ')[0]}; see tune/*/error.txt"


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """Returns the finished trial with the best IPS, then the best accuracy, then the first; None if none finished."""
    finished = [record for record in records if record.status == "finished"]
    return max(finished, key=lambda record: (record.validation_ips, record.validation_accuracy), default=None)


def trial_name(trial: Trial) -> str:
    """Returns a trial's name in its output, in lines and in TensorBoard: its learning rate."""
    return str(trial.config["learning_rate"])


class Reporter(TuneReportCallback):
    """Reports a trial's metrics to Ray Tune after each validation."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called after all workers have reported; passes numbers on and leaves checkpoints to Ray Train."""
        numbers = {name: metrics[0][name] for name in (*METRICS, "step") if name in metrics[0]}
        if "validation_ips" in numbers:
            super().after_report(run_context, [numbers], None)


class Recorder(tune.Callback):
    """Prints and records each trial's result as soon as it is known, so that an interrupted sweep has the records."""

    def __init__(self, output: str) -> None:
        self._output = output

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called after a trial's process has started."""
        print(f"sweep: learning rate {trial_name(trial)} starts", flush=True)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **_: Any) -> None:
        """Called after each validation."""
        shown = ", ".join(f"{name.replace('_', ' ')} {result[name]:.4f}" for name in METRICS if name in result)
        print(f"sweep: learning rate {trial_name(trial)}, step {result['step']}: {shown}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called after a trial has finished, or ASHA has stopped it."""
        self._end(trial, "stopped", None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called after a trial has failed."""
        # Ray Tune has written the traceback on this machine; it reaches the output's storage later.
        file = Path(trial.error_file or "")
        self._end(trial, "failed", failure_of(file.read_text() if file.is_file() else ""))

    def _end(self, trial: Trial, status: Status, error: str | None) -> None:
        rate, last = trial.config["learning_rate"], trial.last_result or {}
        record = read_record(self._output, rate)
        if record is None:  # otherwise its own manifest says that it has finished
            numbers = {name: last.get(name) for name in (*METRICS, "step")}
            seconds = round(last.get("time_total_s", 0.0), 1)
            record = TrialRecord(rate, status, **numbers, seconds=seconds, error=error)
            path = storage.join(trial_output(self._output, rate), RECORD)
            storage.write_json(path, dataclasses.asdict(record))
        print(f"sweep: learning rate {rate} {record.status}{f': {error}' if error else ''}", flush=True)
