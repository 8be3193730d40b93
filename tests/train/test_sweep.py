import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.report.sweep import report_sweep
from artsel_ray.train.settings import SweepConfig
from artsel_ray.train.sweep import check, copy_best, sweep, trial_config
from artsel_ray.train.sweep_trials import FAILED, FINISHED, STOPPED, best_of, read_record, reason_of, trial_output


def config(output: Path, **changes: Any) -> SweepConfig:
    default = SweepConfig(method="sft", examples=str(output / "examples"), model="smollm2", output=str(output / "T"))
    return dataclasses.replace(default, **changes)


def record(rate: float, status: str, ips: float | None, accuracy: float | None = 0.5) -> dict[str, Any]:
    return {"learning_rate": rate, "status": status, "validation_ips": ips, "validation_accuracy": accuracy}


def test_a_trial_is_the_training_with_its_own_rate_and_output(tmp_path: Path) -> None:
    trial = trial_config(config(tmp_path, epochs=3.0, learning_rates=(1e-4, 5e-7)), 5e-7)
    assert type(trial).__name__ == "TrainConfig"
    assert (trial.learning_rate, trial.epochs, trial.method) == (5e-7, 3.0, "sft")
    assert trial.output == str(tmp_path / "T/trials/5e-07")


def test_rates_that_differ_little_have_outputs_of_their_own() -> None:
    assert trial_output("T", 1e-5) != trial_output("T", 1.0000001e-5)
    assert trial_output("s3://b/T?scheme=http", 1e-5) == "s3://b/T/trials/1e-05?scheme=http"


def test_the_best_has_finished_and_the_highest_ips_then_accuracy() -> None:
    trials = [
        record(1e-7, FINISHED, 1.5, 0.2),
        record(1e-6, FINISHED, 1.5, 0.3),
        record(1e-5, STOPPED, 9.0),
        record(1e-4, FAILED, None, None),
        record(1e-3, FINISHED, 1.2, 0.9),
    ]
    best = best_of(trials)
    assert best is not None
    assert best["learning_rate"] == 1e-6
    assert best_of(trials[2:4]) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rates": (1e-5, 0.0)}, "--learning-rates"),
        ({"learning_rates": (1e-5, float("nan"))}, "--learning-rates"),
        ({"learning_rates": (1e-5, 1e-5)}, "--learning-rates"),
        ({"learning_rates": ()}, "--learning-rates"),
        ({"workers": 0}, "--workers"),
        ({"concurrent": 0}, "--concurrent"),
        ({"batch_size": 0}, "--batch-size"),
        ({}, "examples/train"),
    ],
)
def test_flags_that_cannot_be_are_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        check(config(tmp_path, **changes))


def test_what_came_of_a_trial_is_read_from_its_output(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert read_record(output, 1e-5) is None
    stopped = record(1e-5, STOPPED, 1.1)
    storage.write_json(storage.join(output, "trials/1e-05/trial.json"), stopped)
    assert read_record(output, 1e-5) == stopped
    # A manifest says that the training went to its end, whatever was written before.
    metrics = {"loss": 0.5, "validation_accuracy": 0.25, "validation_ips": 2.0}
    history = [{"step": 1, "loss": 0.7}, {"step": 4, **metrics}]
    storage.write_json(
        storage.join(output, "trials/1e-05/summary.json"), {**metrics, "seconds": 9.0, "history": history}
    )
    storage.write_manifest(storage.join(output, "trials/1e-05"), {"metrics": metrics})
    assert read_record(output, 1e-5) == {
        **{"learning_rate": 1e-5, "status": FINISHED, **metrics},
        **{"step": 4, "seconds": 9.0, "error": None},
    }


@pytest.mark.parametrize(
    ("traceback", "reason"),
    [
        ("Traceback …\nartsel_ray.errors.InputError: the loss is nan at step 3", "the loss is nan at step 3"),
        ("artsel_ray.errors.InputError: x is not a table\nexpected:\n  user_id: string", "x is not a table"),
        ("Traceback …\nValueError: cannot read 'what a user wrote'\n", "ValueError; see tune/*/error.txt"),
        ("", "no reason is known; see tune/*/error.txt"),
    ],
)
def test_reasons_are_a_line_and_say_nothing_that_could_come_from_data(traceback: str, reason: str) -> None:
    assert reason_of(traceback) == reason


def test_best_is_the_trial_without_its_checkpoints(tmp_path: Path) -> None:
    for name in ("merged/model.safetensors", "checkpoints/train/c/x.bin", "spec.json", "trial.json", "_manifest.json"):
        storage.write_object(storage.join(str(tmp_path), "trials/1e-05", name), name.encode())
    storage.write_object(storage.join(str(tmp_path), "best/adapter/of-another.safetensors"), b"old")
    copy_best(str(tmp_path), 1e-5)
    found = {str(path.relative_to(tmp_path / "best")) for path in (tmp_path / "best").rglob("*") if path.is_file()}
    assert found == {"merged/model.safetensors", "spec.json", "_manifest.json"}
    assert (tmp_path / "best/merged/model.safetensors").read_text() == "merged/model.safetensors"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sweep_survives_a_trial_that_diverges_and_goes_on_with_more_rates(
    examples: str, tiny_llama: Callable[[bool], str], tmp_path: Path
) -> None:
    given = config(tmp_path, examples=examples, model=tiny_llama(True), max_steps=4, batch_size=2, micro_batch=2)
    given = dataclasses.replace(given, checkpoint_steps=4, lora_rank=2, learning_rates=(1e-3, 1e30))
    sweep(given)
    report_sweep(given.output)
    first = {
        row["learning_rate"]: row for row in storage.read_table(f"{given.output}/trials.parquet", "trials").to_pylist()
    }
    assert (first[1e-3]["status"], first[1e30]["status"]) == (FINISHED, FAILED)
    assert "lower --learning-rate" in first[1e30]["error"]
    assert first[1e-3]["step"] == 4
    assert load(f"{given.output}/best").spec is not None
    assert list((tmp_path / "T/tune/0.001").glob("events.out.tfevents.*"))
    finished = (tmp_path / "T/trials/0.001/_manifest.json").stat().st_mtime_ns

    # More rates: what has finished is kept, and the best is chosen anew among all.
    sweep(dataclasses.replace(given, learning_rates=(1e-3, 1e-4)))
    assert (tmp_path / "T/trials/0.001/_manifest.json").stat().st_mtime_ns == finished
    rows = storage.read_table(f"{given.output}/trials.parquet", "trials").to_pylist()
    assert [(row["learning_rate"], row["status"]) for row in rows] == [(1e-3, FINISHED), (1e-4, FINISHED)]
    best = best_of(rows)
    assert best is not None
    summary = storage.read_json(f"{given.output}/summary.json")
    assert summary["best"]["learning_rate"] == best["learning_rate"]
    assert (tmp_path / "T/best/merged/model.safetensors").read_bytes() == (
        tmp_path / f"T/trials/{best['learning_rate']}/merged/model.safetensors"
    ).read_bytes()
    with pytest.raises(InputError, match="differs in: seed"):
        sweep(dataclasses.replace(given, seed=1))
