"""The best trial of a sweep: what is copied, and when it is measured on test examples."""

from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.train import best_trial
from artsel_ray.train.best_trial import copy_best, describe_measured, measure, measure_on_test
from tests.support.training import TinyLlama, example_row, write_examples, write_random_adapter


def test_best_is_the_trial_without_its_checkpoints(tmp_path: Path) -> None:
    own = ("checkpoints/train/c/x.bin", "trial.json", "test.json")
    for name in ("merged/model.safetensors", "spec.json", *own, "_manifest.json"):
        storage.write_object(storage.join(str(tmp_path), "trials/1e-05", name), name.encode())
    storage.write_object(storage.join(str(tmp_path), "best/adapter/of-another.safetensors"), b"old")
    copy_best(str(tmp_path), 1e-5)
    found = {str(path.relative_to(tmp_path / "best")) for path in (tmp_path / "best").rglob("*") if path.is_file()}
    assert found == {"merged/model.safetensors", "spec.json", "_manifest.json"}
    assert (tmp_path / "best/merged/model.safetensors").read_text() == "merged/model.safetensors"


def test_best_trial_is_measured_on_test_examples_once(
    tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process; tests/train/test_sweep.py measures on Ray."""
    calls: list[Any] = []

    def here(gpus: int | None, *arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(best_trial, "_on_ray", here)
    trained, examples = write_random_adapter(tmp_path / "T", tiny_llama(True)), str(tmp_path / "examples")
    rows = [example_row(1 + n % 3, n % 3, propensity=0.2 + n % 2 / 10, example_id=f"e{n}") for n in range(120)]
    write_examples(f"{examples}/test", rows)
    found = measure_on_test(trained, examples, 10, 2048, None, is_sharded=False)
    assert found["examples"] == 100
    assert describe_measured(found).startswith(f"on 100 test examples, SNIPS {found['snips_logged']:.4f} (random ")
    assert measure_on_test(trained, examples, 10, 2048, None, is_sharded=False) == found
    assert len(calls) == 1
    # More of them, or other ones, are another measurement.
    assert measure_on_test(trained, examples, 110, 2048, None, is_sharded=False)["examples"] == 110
    write_examples(f"{examples}/test", rows[:105])
    assert measure_on_test(trained, examples, 110, 2048, None, is_sharded=False)["examples"] == 105
    assert len(calls) == 3


def test_sweep_keeps_its_result_where_the_best_trial_cannot_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = str(tmp_path / "examples")
    assert measure_on_test("T", examples, 10, 2048, None, is_sharded=True) == {
        "left_out": "a model trained with --fsdp may fit on no single GPU"
    }
    write_examples(f"{examples}/test", [example_row(n) for n in range(99)])
    few = measure_on_test("T", examples, 10, 2048, None, is_sharded=False)
    assert describe_measured(few) == "not measured on any, because the folder test/ has 99 examples, fewer than 100"
    storage.write_object(f"{examples}/test/a.parquet", b"PAR1 cut short")
    assert measure_on_test("T", examples, 10, 2048, None, is_sharded=False) == {"left_out": "the measurement failed"}
    assert "warning: the best trial was not measured on test examples: " in capsys.readouterr().out
