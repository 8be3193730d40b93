"""A sweep over learning rates: each trial of Ray Tune is a Ray Train run of `job.train`, with an output of its own.

A resumed sweep trusts the records of its trials, which are written as soon as a trial ends.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import ray
from ray import tune
from ray.train import UserCallback
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from artsel_ray import schema, storage
from artsel_ray.config import LIMIT_FLAGS, RowLimits, resolved
from artsel_ray.errors import InputError
from artsel_ray.evaluation.held_out import headline_of, selection_note, shown_metrics
from artsel_ray.report.html import render_sweep
from artsel_ray.report.model_card import add_note
from artsel_ray.runtime.ray_cluster import gpus_per_worker, start_ray, wait_for_resources
from artsel_ray.runtime.run import Run
from artsel_ray.train.best_trial import BEST, copy_best, describe_measured, measure_on_test
from artsel_ray.train.callbacks import VALIDATED_STEP
from artsel_ray.train.history import METRICS
from artsel_ray.train.job import NOT_IDENTITY, as_it_began, begin_training, export_merged, train
from artsel_ray.train.settings import SweepConfig, TrainConfig
from artsel_ray.train.trial_records import (
    RECORD,
    TRIALS,
    Status,
    TrialRecord,
    best_of,
    read_record,
    selected_by,
    trial_output,
)
from artsel_ray.train.validation import VALIDATION

TABLE = "trials.parquet"
_SHOWN = ("method", "model", "output_format", "reason", "layout", "batch_size", "lora_rank", "seed")
_Train = Callable[[list[UserCallback]], dict[str, float]]
_HEADLINE = "headline"  # as which a trial reports the metric that selects, whichever it is
# Flags that do not change a trial's result. Learning rates are among them, so that more can be tried later.
_NOT_IDENTITY = (*NOT_IDENTITY, "learning_rate", "learning_rates", "asha", "concurrent")
# A trial's own process waits for its workers. It must claim something, but no share of a CPU: with 2 CPUs, 0.01 each
# for two trials would leave only one CPU for their workers.
_WAITING: dict[str, float] = {"memory": 256 << 20}
_ENVIRONMENT = {
    # A trial may wait until the resources of one that was stopped are free again; Ray Train gives up after 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Shows the trials' workers on the dashboard's page of Ray Train.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    # Ctrl-C ends the job, as any other.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Without it Ray Tune prints tables of its own.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial that was complete already ends without reporting its metrics again.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def sweep(config: SweepConfig) -> None:
    """Trains once for each learning rate, resuming what an earlier run left undone, and copies the best to best/.

    Raises:
        InputError: for wrong input, another sweep's output, or if no trial finished.
    """
    config = as_it_began(config)
    started, flags = time.monotonic(), resolved(config)
    run = begin_training(flags, _NOT_IDENTITY)
    records = {rate: read_record(config.output, rate) for rate in config.learning_rates}
    missing = [rate for rate, record in records.items() if record is None or record.status == "failed"]
    print(f"{len(records)} learning rates, {len(records) - len(missing)} done; {config.output}", flush=True)
    if missing:
        for ended in [storage.MANIFEST, *(f"{TRIALS}/{rate}/{RECORD}" for rate in missing)]:
            storage.delete(storage.join(config.output, ended))
        _run_trials(config, {rate: partial(train, trial_config(config, rate)) for rate in missing})
    found = [record for rate in config.learning_rates if (record := read_record(config.output, rate))]
    if len(found) < len(records):
        raise KeyboardInterrupt
    _publish(run, found, flags, round(time.monotonic() - started, 1))


def trial_config(config: SweepConfig, rate: float) -> TrainConfig:
    """Returns the flags of jobs/train.py that do the same as a trial."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    own = {"learning_rate": rate, "output": trial_output(config.output, rate), "export_merged": False}  # of best/ alone
    return TrainConfig(**shared | own)


def _run_trials(config: SweepConfig, trials: dict[float, _Train]) -> None:
    os.environ.update(_ENVIRONMENT | os.environ)
    keep_keys_out_of_logs()
    # A failed trial is reported in one line, by the recorder.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    start_ray(dashboard=True)
    scheduler = None
    if config.asha:
        _check_state_api()
        scheduler = ASHAScheduler(time_attr="step", max_t=10**9, grace_period=config.optimization.checkpoint_steps)
    # Trials that the cluster runs at the same time.
    workers, gpus = config.optimization.workers, gpus_per_worker(config.optimization.gpus_per_worker)
    worker: dict[str, float] = {"CPU": 1, "GPU": gpus}
    wait_for_resources(f"{workers} worker(s) of a trial", worker, workers, at_least=workers)
    fitting = max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1)) // workers)
    fs, path = storage.filesystem(config.output)
    tune.Tuner(
        tune.with_resources(partial(_trial, trials), _WAITING),
        param_space={"learning_rate": tune.grid_search(list(trials))},
        tune_config=tune.TuneConfig(
            metric=_HEADLINE, mode="max", max_concurrent_trials=config.concurrent or fitting,
            scheduler=scheduler, trial_dirname_creator=trial_name, trial_name_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=path, storage_filesystem=fs, verbose=0, callbacks=[Recorder(config.output)]
        ),
    ).fit()  # fmt: skip


def _trial(trials: dict[float, _Train], parameters: dict[str, float]) -> None:
    os.environ.update(_ENVIRONMENT | os.environ)
    metrics = trials[parameters["learning_rate"]]([Reporter()])
    tune.report({**metrics, _HEADLINE: metrics[headline_of(metrics, VALIDATION)]})  # of what was exported


def keep_keys_out_of_logs() -> None:
    """Keeps AWS keys out of the trials' runtime environments, which Ray logs: workers have keys of their own."""
    # Private to Ray 2.60; tests/train/test_sweep.py fails when it changes.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}


def _check_state_api() -> None:
    """Without a dashboard's state API each stopped trial would keep its CPUs or GPUs (ray#54305)."""
    try:
        list_actors(limit=1)
    except RayStateApiException:
        raise InputError("--asha needs a Ray cluster with its dashboard on; start one, or leave it out") from None


def _publish(run: Run, records: list[TrialRecord], flags: dict[str, Any], seconds: float) -> None:
    output, rows = run.output, [dataclasses.asdict(record) for record in records]
    storage.write_table(storage.join(output, TABLE), pa.Table.from_pylist(rows, schema.TRIALS), "trials")
    best, selected = best_of(records), selected_by(records)
    if best is None:
        errors = [record.error for record in records if record.error]
        raise InputError(f"no trial finished; the first failed with: {errors[0]}")
    copy_best(output, best.learning_rate)
    # What its training noticed, in a process whose output is not shown.
    for notice in storage.read_json(storage.join(output, BEST, "summary.json")).get("notices", []):
        print(f"best trial: {notice}", flush=True)
    if flags["export_merged"] and flags["lora_rank"]:
        export_merged(storage.join(output, BEST))
    counts = {status: sum(record.status == status for record in records) for status in get_args(Status)}
    note, on_test = _measure_again(output, best.learning_rate, len(records) - counts["failed"], flags)
    page = render_sweep(rows, dataclasses.asdict(best), shown_flags(flags), selected, note)
    report = storage.join(output, "report.html")
    storage.write_object(report, page.encode())
    summary = {"best": dataclasses.asdict(best), "headline": selected, "test": on_test, **counts, "seconds": seconds}
    storage.write_json(storage.join(output, "summary.json"), summary)
    run.publish({"best": best.learning_rate, "trials": len(records)})
    print(
        f"sweep: {', '.join(f'{count} {status}' for status, count in counts.items())}; best learning rate "
        f"{best.learning_rate}, validation {shown_metrics(dataclasses.asdict(best), VALIDATION)}; "
        f"{storage.join(output, BEST)}\n{report}",
        flush=True,
    )
    if note:
        print(f"the best trial's validation metrics are {note}", flush=True)


def _measure_again(output: str, rate: float, trials: int, flags: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Returns what the best trial's validation metrics are, and its metrics on test examples; neither for one trial."""
    note = selection_note(trials)
    if not note:
        return note, None
    on_test = measure_on_test(
        trial_output(output, rate), flags["examples"], flags["validation_size"], flags["max_model_length"],
        flags["gpus_per_worker"], flags["fsdp"], flags["image_root"], RowLimits(**{n: flags[n] for n in LIMIT_FLAGS}),
    )  # fmt: skip
    note = f"{note}: {describe_measured(on_test)}"
    add_note(storage.join(output, BEST), f"Its validation metrics are {note}.")
    return note, on_test


def shown_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the flags that tell sweeps apart, for the report."""
    length = "max_steps" if flags["max_steps"] else "epochs"
    shown = {name: flags[name] for name in (*_SHOWN, length) if flags[name] is not None}
    # Only the end of a path: a URI's query can be private, and reports are passed around.
    return shown | {"model": "/".join(str(flags["model"]).partition("?")[0].rstrip("/").split("/")[-2:])}


def failure_of(traceback: str) -> str:
    """Returns why a trial failed: an `InputError`'s message, of others only the type, for messages may hold data."""
    lines = traceback.strip().splitlines() or ["no cause is known"]
    for line in reversed(lines):
        kind, _, message = line.partition(": ")
        if kind == f"{InputError.__module__}.{InputError.__name__}":
            return message
    return f"{lines[-1].partition(': ')[0]}; see tune/*/error.txt"


def trial_name(trial: Trial) -> str:
    """Returns a trial's name in its output, in lines and in TensorBoard: its learning rate."""
    return str(trial.config["learning_rate"])


class Reporter(TuneReportCallback):
    """Reports a trial's metrics to Ray Tune after each validation."""

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called after all workers have reported; passes numbers on and leaves checkpoints to Ray Train."""
        numbers = {name: metrics[0][name] for name in (*METRICS, "step") if name in metrics[0]}
        if "validation_ips" in numbers and metrics[0].get(VALIDATED_STEP) == numbers.get("step"):
            numbers[_HEADLINE] = numbers[headline_of(numbers, VALIDATION)]
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
        when = f"step {result['step']}" if "step" in result else "as exported"
        shown = f"{when}: validation {shown_metrics(result, VALIDATION)}"
        print(f"sweep: learning rate {trial_name(trial)}, {shown}", flush=True)

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
            record = TrialRecord(rate, status, **numbers, seconds=round(last.get("time_total_s", 0.0), 1), error=error)
            storage.write_json(storage.join(trial_output(self._output, rate), RECORD), dataclasses.asdict(record))
        print(f"sweep: learning rate {rate} {record.status}{f': {error}' if error else ''}", flush=True)
