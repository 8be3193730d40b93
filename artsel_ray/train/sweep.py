"""A sweep over learning rates: each trial of Ray Tune is a Ray Train run of `launch`, with an output of its own."""

import dataclasses
import logging
import math
import os
import shutil
import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler
from ray.util.state import list_actors
from ray.util.state.exception import RayStateApiException

from artsel_ray import schema, storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.s3 import open_file
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import DRIVER, Run, begin
from artsel_ray.train import job as launch
from artsel_ray.train.settings import SweepConfig, TrainConfig
from artsel_ray.train.sweep_trials import (
    FAILED,
    FINISHED,
    RECORD,
    STOPPED,
    TRIALS,
    Recorder,
    Reporter,
    best_of,
    read_record,
    trial_name,
    trial_output,
)

BEST, TABLE = "best", "trials.parquet"
_TUNE = "tune"
_CHECKPOINTS = "checkpoints"
_COPY_BYTES = 1 << 24
# A trial's own process waits for its workers. It must claim something, but no share of a CPU: with 2 CPUs, 0.01 each
# for two trials would leave only one whole CPU for their workers.
_WAITING: dict[str, float] = {"memory": 256 << 20}
_ENVIRONMENT = {
    # A trial may wait until the resources of one that was stopped are free again; Ray Train gives up after 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Shows the trials' workers on the dashboard's page of Ray Train.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    # Ray Tune prints tables of its own otherwise.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial that was complete already ends without telling its metrics again.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def sweep(config: SweepConfig) -> None:
    """Trains once for each learning rate, resuming what an earlier run left undone, and copies the best to best/.

    Raises:
        InputError: for wrong flags or input, another sweep's output, or if no trial finished.
    """
    check(config)
    started = time.monotonic()
    run = begin(config.output, _run(config), resolved(config))
    records = {rate: read_record(config.output, rate) for rate in config.learning_rates}
    missing = [rate for rate, record in records.items() if record is None or record["status"] == FAILED]
    print(f"{len(records)} learning rates, {len(records) - len(missing)} done; {config.output}", flush=True)
    if missing:
        for ended in [storage.MANIFEST, *(f"{TRIALS}/{rate}/{RECORD}" for rate in missing)]:
            storage.delete(storage.join(config.output, ended))
        _run_trials(config, missing)
    found = [record for rate in config.learning_rates if (record := read_record(config.output, rate))]
    if len(found) < len(records):
        raise KeyboardInterrupt
    _publish(run, config, found, round(time.monotonic() - started, 1))


def check(config: SweepConfig) -> None:
    """Finds flags that cannot be.

    Raises:
        InputError: naming the flag.
    """
    rates = config.learning_rates
    wrong = [rate for rate in rates if not 0 < rate < math.inf]
    if wrong or not rates or len(set(rates)) < len(rates):
        shown = " ".join(map(str, rates))
        raise InputError(f"--learning-rates is '{shown}', expected one or more different numbers above 0")
    if config.workers < 1:
        raise InputError("--workers is 0; a sweep runs on Ray and needs 1 or more for each trial")
    if config.concurrent is not None and config.concurrent < 1:
        raise InputError(f"--concurrent is {config.concurrent}, expected 1 or more")
    for rate in rates:
        launch.check(trial_config(config, rate))


def trial_config(config: SweepConfig, rate: float) -> TrainConfig:
    """Returns the flags of jobs/train.py that do the same as a trial."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    return TrainConfig(**{**shared, "learning_rate": rate, "output": trial_output(config.output, rate)})


def _run(config: SweepConfig) -> dict[str, Any]:
    """Returns what decides each trial's result. Learning rates are not of it, so that more of them can be tried."""
    apart = ("output", "workers", "learning_rate", "learning_rates", "asha", "concurrent")
    flags = {name: value for name, value in resolved(config).items() if name not in apart}
    return {**flags, "model": load(config.model).model_id}


def _run_trials(config: SweepConfig, rates: list[float]) -> None:
    os.environ.update(_ENVIRONMENT | os.environ)
    # Ray Tune would hand keys on in the trials' runtime environments, which Ray writes into its logs. Workers have them
    # from their machine, or from the job's own environment.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    # What fails is told in a line, by the recorder.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    start_ray(dashboard=True)
    if config.asha:
        _check_state_api()
    fs, path = storage.filesystem(config.output)
    scheduler = ASHAScheduler(time_attr="step", max_t=10**9, grace_period=config.checkpoint_steps)
    tune.Tuner(
        tune.with_resources(partial(_trial, config), _WAITING),
        param_space={"learning_rate": tune.grid_search(rates)},
        tune_config=tune.TuneConfig(
            metric="validation_ips",
            mode="max",
            max_concurrent_trials=config.concurrent or _fitting(config),
            scheduler=scheduler if config.asha else None,
            trial_dirname_creator=trial_name,
            trial_name_creator=trial_name,
        ),
        run_config=tune.RunConfig(
            name=_TUNE, storage_path=path, storage_filesystem=fs, verbose=0, callbacks=[Recorder(config.output)]
        ),
    ).fit()


def _check_state_api() -> None:
    """Ray Train frees what a killed trial's workers held by asking the dashboard's process whether the trial lives.

    Raises:
        InputError: if there is no dashboard; each stopped trial would then keep its CPUs or GPUs (ray#54305).
    """
    try:
        list_actors(limit=1)
    except RayStateApiException:
        raise InputError(
            "--asha needs a Ray cluster with its dashboard on; start it with one, or leave --asha out"
        ) from None


def _fitting(config: SweepConfig) -> int:
    resources = ray.cluster_resources()
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)) // config.workers)


def _trial(config: SweepConfig, parameters: dict[str, float]) -> None:
    """Is what each trial runs, in a process of its own which waits for the trial's workers."""
    os.environ.update(_ENVIRONMENT | os.environ)
    launch.train(trial_config(config, parameters["learning_rate"]), [Reporter()])


def _publish(run: Run, config: SweepConfig, records: list[dict[str, Any]], seconds: float) -> None:
    """Writes the table, best/, the summary and, last, the manifest."""
    table = pa.Table.from_pylist(records, schema.TRIALS)
    storage.write_table(storage.join(config.output, TABLE), table, "trials")
    best = best_of(records)
    if best is None:
        errors = [record["error"] for record in records if record["error"]]
        raise InputError(f"no trial finished; the first failed with: {errors[0]}")
    copy_best(config.output, best["learning_rate"])
    counts = {status: sum(record["status"] == status for record in records) for status in (FINISHED, STOPPED, FAILED)}
    storage.write_json(storage.join(config.output, "summary.json"), {"best": best, **counts, "seconds": seconds})
    run.publish({"best": best["learning_rate"], "trials": len(records)})
    print(
        f"sweep: {', '.join(f'{count} {status}' for status, count in counts.items())}; best learning rate "
        f"{best['learning_rate']} with validation IPS {best['validation_ips']:.4f}; "
        f"{storage.join(config.output, BEST)}",
        flush=True,
    )


def copy_best(output: str, rate: float) -> None:
    """Copies a trial's output, but not its checkpoints, to best/; the manifest comes last."""
    target, source = storage.join(output, BEST), trial_output(output, rate)
    storage.delete(target)
    fs, path = storage.filesystem(source)
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    names = [entry.path[len(path) + 1 :] for entry in entries if entry.type == pafs.FileType.File]
    kept = [name for name in names if name.split("/")[0] not in (_CHECKPOINTS, RECORD, DRIVER)]
    for name in sorted(kept, key=lambda name: (name == storage.MANIFEST, name)):
        _, to = storage.filesystem(storage.join(target, *name.split("/")))
        fs.create_dir(to.rpartition("/")[0], recursive=True)
        # Streamed: a copy within S3 ends at 5 GB.
        with open_file(fs, f"{path}/{name}") as reader, fs.open_output_stream(to) as writer:
            shutil.copyfileobj(reader, writer, _COPY_BYTES)
