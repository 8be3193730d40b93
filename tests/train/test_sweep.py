"""The sweep job: its flags, its trials and their records, and what it publishes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.execution import class_cache
from ray.tune.integration.ray_train import TuneReportCallback

from artsel_ray import storage
from artsel_ray.config import from_flags
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.evaluation.held_out import selection_note
from artsel_ray.models.load import load
from artsel_ray.report.html import render_sweep
from artsel_ray.train.best_trial import describe_measured, measure
from artsel_ray.train.job import train
from artsel_ray.train.settings import SweepConfig
from artsel_ray.train.sweep import (
    Recorder,
    Reporter,
    failure_of,
    keep_keys_out_of_logs,
    shown_flags,
    sweep,
    trial_config,
)
from artsel_ray.train.trial_records import TrialRecord, read_record
from tests.support.training import TinyLlama, changed, example_row, write_examples


def config(output: Path, **changes: Any) -> SweepConfig:
    flags = {"method": "sft", "examples": str(output / "examples"), "model": "smollm2", "output": str(output / "T")}
    return from_flags(SweepConfig, **flags | changes)


def test_trial_is_the_training_with_its_own_rate_and_output(tmp_path: Path) -> None:
    trial = trial_config(config(tmp_path, epochs=3.0, learning_rates=(1e-4, 5e-7)), 5e-7)
    assert type(trial).__name__ == "TrainConfig"
    assert (trial.learning_rate, trial.optimization.epochs, trial.method) == (5e-7, 3.0, "sft")
    assert trial.output == str(tmp_path / "T/trials/5e-07")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rates": (1e-5, 0.0)}, "--learning-rates is 0.0; it must be more than 0"),
        ({"learning_rates": (1e-5, float("nan"))}, "--learning-rates"),
        ({"learning_rates": (1e-5, 1e-5)}, "--learning-rates is '1e-05 1e-05'; it must be one or more different"),
        ({"learning_rates": ()}, "--learning-rates"),
        ({"workers": 0}, "--workers is 0; a sweep runs on Ray"),
        ({"concurrent": 0}, "--concurrent is 0; it must be at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({}, "examples/train"),
    ],
)
def test_wrong_flags_are_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        sweep(config(tmp_path, **changes))


def test_keys_stay_out_of_the_trials_runtime_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote:
        def __init__(self, runtime_env: dict[str, Any]) -> None:
            self.variables = runtime_env["env_vars"]

        def __call__(self, trainable: type) -> "Remote":
            return self

    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE.copy())
    monkeypatch.setattr(class_cache.ray, "remote", Remote)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    before = class_cache._ActorClassCache().get(int).variables
    assert before["AWS_SECRET_ACCESS_KEY"] == "secret"
    keep_keys_out_of_logs()
    after = class_cache._ActorClassCache().get(int).variables
    assert not [name for name in after if name.startswith("AWS_")]
    assert after.items() <= before.items()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "secret"


def page_of(flags: dict[str, Any]) -> str:
    """The report of a sweep of one trial."""
    numbers = {"validation_ips": 1.75, "validation_accuracy": 0.25, "loss": 1.0, "step": 40, "seconds": 3.0}
    trial = {"learning_rate": 1e-5, "status": "finished", **numbers, "error": None}
    return render_sweep([trial], trial, shown_flags(flags))


def test_page_shows_the_flags_without_what_is_private() -> None:
    flags: dict[str, Any] = {
        "method": "sft",
        "model": "s3://bucket/secret-place/a/model?key=k3y",
        "examples": "s3://bucket/private",
        "seed": 3,
    }
    flags |= dict.fromkeys(("output_format", "reason", "layout", "epochs", "max_steps", "batch_size", "lora_rank"))
    page = page_of(flags)
    assert "1.750" in page
    assert "a/model" in page
    assert "seed: 3" in page
    assert not [word for word in ("secret-place", "k3y", "private") if word in page]


def test_page_names_steps_or_epochs() -> None:
    flags: dict[str, Any] = dict.fromkeys(("output_format", "reason", "layout", "batch_size", "lora_rank", "seed"))
    flags |= {"method": "sft", "model": "m", "epochs": 1.0}
    assert "epochs: 1.0" in page_of(flags | {"max_steps": None})
    assert "max steps: 7" in page_of(flags | {"max_steps": 7})


def test_best_trial_passes_on_what_it_noticed_and_is_merged_on_request(
    tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [example_row(1, captions=["Two friends."] * 2, example_id=f"e{number}") for number in range(4)]
    for split in ("train", "validation"):
        write_examples(tmp_path / "examples" / split, rows)
    given = config(
        tmp_path, model=tiny_llama(True), max_steps=1, batch_size=4, lora_rank=2, learning_rates=(1e-3, 1e-4),
        export_merged=True,
    )  # fmt: skip
    for rate in given.learning_rates:
        train(changed(trial_config(given, rate), workers=0))  # as a trial does on Ray, in a process of its own
    assert not list(tmp_path.glob("T/trials/*/merged"))
    capsys.readouterr()
    sweep(given)
    out = capsys.readouterr().out
    assert out.count("best trial: warning: 4 of 4 train examples engage with an artwork that reads the same") == 1
    assert "merging into float32 loses" in out
    note = f"{selection_note(2)}: not measured on any, because the folder test/ has 0 examples, fewer than 100"
    for shown in (out, (tmp_path / "T/report.html").read_text(), (tmp_path / "T/best/README.md").read_text()):
        assert note in shown
    assert (tmp_path / "T/best/merged/model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_sweep_resumes_with_more_rates_and_measures_the_best_again(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = config(
        tmp_path, examples=examples, model=tiny_llama(True), max_steps=4, batch_size=2, micro_batch=2,
        checkpoint_steps=4, lora_rank=2, learning_rates=(1e-3,),
    )  # fmt: skip
    sweep(given)
    page = (tmp_path / "T/report.html").stat()
    assert page.st_mtime_ns <= (tmp_path / "T/_manifest.json").stat().st_mtime_ns
    (first,) = read_table(f"{given.output}/trials.parquet", "trials").to_pylist()
    assert (first["status"], first["step"]) == ("finished", 4)
    assert load(f"{given.output}/best").spec is not None
    assert list((tmp_path / "T/tune/0.001").glob("events.out.tfevents.*"))
    finished = (tmp_path / "T/trials/0.001/_manifest.json").stat().st_mtime_ns

    # More rates: finished trials are kept, and the best is chosen again among all.
    assert storage.read_json(f"{given.output}/summary.json")["test"] is None  # one trial is no selection
    write_examples(f"{examples}/test", [example_row(1 + n % 3, n % 3, example_id=f"t{n}") for n in range(100)])
    sweep(changed(given, learning_rates=(1e-3, 1e-4)))
    assert (tmp_path / "T/trials/0.001/_manifest.json").stat().st_mtime_ns == finished
    rows = read_table(f"{given.output}/trials.parquet", "trials").to_pylist()
    assert [(row["learning_rate"], row["status"]) for row in rows] == [(1e-3, "finished"), (1e-4, "finished")]
    best = max(rows, key=lambda row: (row["validation_ips"], row["validation_accuracy"]))
    summary = storage.read_json(f"{given.output}/summary.json")
    assert summary["best"]["learning_rate"] == best["learning_rate"]
    # Its model was measured again, on examples that did not choose it.
    again = measure(f"{given.output}/best", f"{examples}/test", 100, given.learning.max_model_length)
    assert summary["test"] == again
    pages = [(tmp_path / "T" / name).read_text() for name in ("report.html", "best/README.md")]
    for shown in (capsys.readouterr().out, *pages):
        assert f"{selection_note(2)}: {describe_measured(again)}" in shown
    assert (tmp_path / "T/best/adapter/adapter_model.safetensors").read_bytes() == (
        tmp_path / f"T/trials/{best['learning_rate']}/adapter/adapter_model.safetensors"
    ).read_bytes()
    with pytest.raises(InputError, match="differs in: seed"):
        sweep(changed(given, seed=1))


def test_tune_compares_trials_by_the_metric_that_selects(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[dict[str, Any]] = []
    monkeypatch.setattr(TuneReportCallback, "after_report", lambda self, context, metrics, _: reported.extend(metrics))
    uniform = {"validation_ips": 5.2, "validation_accuracy": 0.5, "step": 2, "validated_step": 2}
    reporter = Reporter.__new__(Reporter)
    for metrics in (uniform, {**uniform, "validation_snips_logged": 0.2}, {"loss": 1.0}):
        reporter.after_report(None, [metrics], None)
    reporter.after_report(None, [{**uniform, "step": 4}], None)  # a checkpoint without a validation of its own
    assert [each["headline"] for each in reported] == [5.2, 0.2]


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
