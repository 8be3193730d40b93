"""The records of trials: where they are, what resume reads, which one is best."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from artsel_ray import storage
from artsel_ray.train.sweep_trials import (
    Recorder,
    Status,
    TrialRecord,
    best_of,
    failure_of,
    read_record,
    trial_output,
)


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


@pytest.mark.parametrize(
    ("traceback", "shown"),
    [
        ("Traceback …\nartsel_ray.errors.InputError: the loss is nan at step 3", "the loss is nan at step 3"),
        ("artsel_ray.errors.InputError: x is not a table\nexpected:\n  user_id: string", "x is not a table"),
        ("Traceback …\nValueError: cannot read 'what a user wrote'\n", "ValueError; see tune/*/error.txt"),
        ("", "no cause is known; see tune/*/error.txt"),
    ],
)
def test_failures_are_one_line_without_anything_from_data(traceback: str, shown: str) -> None:
    assert failure_of(traceback) == shown


def test_recorder_writes_how_a_trial_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(str(tmp_path))
    error = tmp_path / "error.txt"
    error.write_text("artsel_ray.errors.InputError: the loss is nan at step 3")
    last = {"validation_ips": 1.5, "validation_accuracy": 0.25, "loss": 2.0, "step": 4, "time_total_s": 1.26}

    def trial(rate: float, **attributes: Any) -> Any:
        return SimpleNamespace(config={"learning_rate": rate}, **attributes)

    recorder.on_trial_complete(0, [], trial(1e-5, last_result=last))
    recorder.on_trial_error(0, [], trial(1e-4, last_result=None, error_file=str(error)))
    assert read_record(str(tmp_path), 1e-5) == TrialRecord(1e-5, "stopped", 1.5, 0.25, 2.0, 4, 1.3)
    assert read_record(str(tmp_path), 1e-4) == TrialRecord(1e-4, "failed", error="the loss is nan at step 3")
    assert capsys.readouterr().out == (
        "sweep: learning rate 1e-05 stopped\nsweep: learning rate 0.0001 failed: the loss is nan at step 3\n"
    )


def test_statuses_are_those_of_the_table() -> None:
    assert set(get_args(Status)) == {"finished", "stopped", "failed"}
