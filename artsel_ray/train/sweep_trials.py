"""What becomes of a sweep's trials: the records that resume trusts, and the callbacks that write them."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from artsel_ray import storage
from artsel_ray.errors import InputError

TRIALS, RECORD = "trials", "trial.json"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
METRICS = ("validation_ips", "validation_accuracy", "loss")


def trial_output(output: str, rate: float) -> str:
    """Returns where a trial's training goes."""
    return storage.join(output, TRIALS, str(rate))


def read_record(output: str, rate: float) -> dict[str, Any] | None:
    """Returns what came of a trial, a row of the table of trials; None if it has not ended."""
    trained = trial_output(output, rate)
    if storage.read_manifest(trained) is not None:
        summary = storage.read_json(storage.join(trained, "summary.json"))
        metrics = {name: summary[name] for name in METRICS}
        steps = max(entry["step"] for entry in summary["history"])
        return _record(rate, FINISHED, {**metrics, "step": steps, "seconds": summary["seconds"]})
    ended = storage.join(trained, RECORD)
    return storage.read_json(ended) if storage.exists(ended) else None


def _record(rate: float, status: str, numbers: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    names = (*METRICS, "step", "seconds")
    return {"learning_rate": rate, "status": status, **{name: numbers.get(name) for name in names}, "error": error}


def reason_of(traceback: str) -> str:
    """Returns why a trial failed in one line: a message for users as it is, of anything else only what kind it is."""
    lines = traceback.strip().splitlines() or ["no reason is known"]
    for line in reversed(lines):
        kind, _, message = line.partition(": ")
        if kind == f"{InputError.__module__}.{InputError.__name__}":
            return message
    return f"{lines[-1].partition(': ')[0]}; see tune/*/error.txt"


def best_of(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the finished trial with the best IPS, of equals the one with the best accuracy, then the first."""
    finished = [record for record in records if record["status"] == FINISHED]
    return max(finished, key=lambda record: (record["validation_ips"], record["validation_accuracy"]), default=None)


def trial_name(trial: Trial) -> str:
    """Returns what a trial is called, here, in its output and in TensorBoard."""
    return str(trial.config["learning_rate"])


class Reporter(TuneReportCallback):
    """Tells Ray Tune how a trial does, after each validation."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Is called when all workers have reported; passes numbers on and leaves checkpoints to Ray Train."""
        numbers = {name: metrics[0][name] for name in (*METRICS, "step") if name in metrics[0]}
        if "validation_ips" in numbers:
            super().after_report(run_context, [numbers], None)


class Recorder(tune.Callback):
    """Prints and writes down what becomes of each trial, as soon as it is known: a sweep that dies has these."""

    def __init__(self, output: str) -> None:
        """Takes where the sweep goes."""
        self._output = output

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Is called when a trial's process is up."""
        print(f"sweep: learning rate {trial_name(trial)} starts", flush=True)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict, **_: Any) -> None:
        """Is called after each validation."""
        shown = ", ".join(f"{name.replace('_', ' ')} {result[name]:.4f}" for name in METRICS if name in result)
        print(f"sweep: learning rate {trial_name(trial)}, step {result['step']}: {shown}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Is called when a trial has finished, or ASHA has stopped it."""
        self._end(trial, STOPPED, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Is called when a trial has failed."""
        # Ray Tune has written it here; to the storage it comes later.
        file = Path(trial.error_file or "")
        self._end(trial, FAILED, reason_of(file.read_text() if file.is_file() else ""))

    def _end(self, trial: Trial, status: str, error: str | None) -> None:
        rate, last = trial.config["learning_rate"], trial.last_result or {}
        record = read_record(self._output, rate)
        if record is None:  # it has not finished
            record = _record(rate, status, {**last, "seconds": round(last.get("time_total_s", 0.0), 1)}, error)
            storage.write_json(storage.join(trial_output(self._output, rate), RECORD), record)
        print(f"sweep: learning rate {rate} {record['status']}{f': {error}' if error else ''}", flush=True)
