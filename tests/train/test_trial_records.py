"""The records of a sweep's trials, and which trial is the best."""

import dataclasses
from pathlib import Path
from typing import get_args

from artsel_ray import storage
from artsel_ray.train.trial_records import Status, TrialRecord, best_of, read_record, selected_by, trial_output


def record(rate: float, status: Status, ips: float | None, accuracy: float | None = 0.5) -> TrialRecord:
    return TrialRecord(rate, status, validation_ips=ips, validation_accuracy=accuracy)


def test_similar_rates_have_outputs_of_their_own() -> None:
    assert trial_output("T", 1e-5) != trial_output("T", 1.0000001e-5)
    assert trial_output("s3://b/T?scheme=http", 1e-5) == "s3://b/T/trials/1e-05?scheme=http"


def test_best_trial_has_finished_with_the_highest_ips_then_accuracy() -> None:
    trials = [
        record(1e-7, "finished", 1.5, 0.2),
        record(1e-6, "finished", 1.5, 0.3),
        record(1e-5, "stopped", 9.0),
        record(1e-4, "failed", None, None),
        record(1e-3, "finished", 1.2, 0.9),
    ]
    best = best_of(trials)
    assert best is not None
    assert best.learning_rate == 1e-6
    assert best_of(trials[2:4]) is None


def test_best_trial_is_chosen_by_logged_snips_where_all_have_it() -> None:
    copies_log = dataclasses.replace(record(1e-5, "finished", 5.2), validation_snips_logged=0.2)
    learns = dataclasses.replace(record(1e-6, "finished", 1.8), validation_snips_logged=0.4)
    assert (selected_by([copies_log, learns]), best_of([copies_log, learns])) == ("validation_snips_logged", learns)
    # One that an earlier version has finished, without it.
    earlier = record(1e-7, "finished", 1.2)
    assert (selected_by([copies_log, learns, earlier]), best_of([copies_log, learns, earlier])) == (
        *("validation_ips", copies_log),
    )


def test_record_is_read_from_the_trials_output(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert read_record(output, 1e-5) is None
    stopped = record(1e-5, "stopped", 1.1)
    storage.write_json(storage.join(output, "trials/1e-05/trial.json"), dataclasses.asdict(stopped))
    assert read_record(output, 1e-5) == stopped
    # A manifest says that the training has finished, whatever was recorded before.
    metrics = {"loss": 0.5, "validation_accuracy": 0.25, "validation_ips": 2.0}
    history = [{"step": 1, "loss": 0.7}, {"step": 4, **metrics}]
    storage.write_json(
        storage.join(output, "trials/1e-05/summary.json"), {**metrics, "seconds": 9.0, "history": history}
    )
    storage.write_manifest(storage.join(output, "trials/1e-05"), {"metrics": metrics})
    assert read_record(output, 1e-5) == TrialRecord(1e-5, "finished", **metrics, step=4, seconds=9.0, error=None)


def test_statuses_are_those_of_the_table() -> None:
    assert set(get_args(Status)) == {"finished", "stopped", "failed"}
