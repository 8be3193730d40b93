import dataclasses
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.reproduce import study
from artsel_ray.reproduce.paper import FEW, MANY, ROWS, SCALES, Experiment
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.reproduce.study import Study
from tests.support.evaluation_tables import example, write

SFT = Experiment("8B", "text", "sft", FEW, rationale=True)


def made(output: Path, scale: str = "smoke", **changes: Any) -> Study:
    scale_used = dataclasses.replace(SCALES[scale], **changes)
    return Study(ReproduceConfig(output=str(output)), scale_used)


class Jobs:
    """Records the settings that jobs were called with, in place of running them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any]] = []
        for name in ("simulate", "prepare", "baseline", "distill", "train", "sweep", "score"):
            monkeypatch.setattr(study, name, lambda config, name=name: self.calls.append((name, config)))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(study, "write_tiny", lambda *arguments: None)
    return Jobs(monkeypatch)


def test_experiments_that_differ_only_in_the_paper_share_a_name(tmp_path: Path) -> None:
    small = made(tmp_path, "smoke")
    assert small.name(Experiment("3B", "number")) == small.name(Experiment("8B", "number")) == "tiny-zero-shot-number"
    assert small.name(SFT) == "tiny-sft-text-reasons-64"
    assert small.name(Experiment("8B", "text", "dpo", MANY)) == "tiny-dpo-text-128-from-pretrained"
    paper = made(tmp_path, "paper")
    names = {paper.name(row.experiment) for row in ROWS if row.experiment}
    assert len(names) == len({row.experiment for row in ROWS if row.experiment})


def test_prepared_data_are_kept(tmp_path: Path, jobs: Jobs) -> None:
    storage.write_manifest(str(tmp_path / "world"), {})
    storage.write_manifest(str(tmp_path / "data-64"), {})
    made(tmp_path).prepare_data()
    assert jobs.names == ["prepare", "baseline"]
    assert jobs.calls[0][1].train_size == 128


def test_zero_shot_scores_with_the_papers_prompt(tmp_path: Path, jobs: Jobs) -> None:
    assert made(tmp_path).run(Experiment("8B", "number"), rationales=0)
    ((name, config),) = jobs.calls
    assert name == "score"
    prompt = config.prompt
    assert (prompt.layout, prompt.output_format, prompt.history_length) == ("user_first", "number", 4)
    assert config.engine_pool.engine == "transformers"


def test_trained_model_brings_its_prompt_and_its_start_is_trained_first(tmp_path: Path, jobs: Jobs) -> None:
    start = Experiment("8B", "text", "sft", FEW)
    made(tmp_path).run(Experiment("8B", "text", "dpo", FEW, start=start), rationales=0)
    assert jobs.names == ["train", "train", "score"]
    sft, dpo, score = (config for _, config in jobs.calls)
    assert (sft.method, dpo.method, dpo.model, score.model) == ("sft", "dpo", sft.output, dpo.output)
    assert score.prompt.layout is score.prompt.output_format is None


def test_several_learning_rates_are_a_sweep(tmp_path: Path, jobs: Jobs) -> None:
    study_of_two = made(tmp_path, learning_rates=(1e-4, 1e-3), training={})
    study_of_two.run(Experiment("8B", "text", "sft", FEW), rationales=0)
    assert jobs.names == ["sweep", "score"]
    assert jobs.calls[0][1].learning_rates == (1e-4, 1e-3)
    assert jobs.calls[1][1].model == storage.join(jobs.calls[0][1].output, "best")


def test_finished_experiment_is_not_run_again(tmp_path: Path, jobs: Jobs) -> None:
    finished = made(tmp_path)
    storage.write_manifest(finished.predictions(SFT), {"parts": []})
    assert not finished.run(SFT, rationales=MANY)
    assert not jobs.calls


def test_smaller_sets_take_their_rationales_from_the_largest(tmp_path: Path, jobs: Jobs) -> None:
    rows = [example(f"u{number}", "t", ["a", "b"], 0) for number in range(3)]
    explained = [row | {"rationale": f"because {row['user_id']}"} for row in rows]
    write(tmp_path / "data-128/with-reasons/train", "examples", explained)
    storage.write_manifest(str(tmp_path / "data-128/with-reasons/train"), {"parts": ["part-0.parquet"]})
    write(tmp_path / "data-64/examples/train", "examples", rows[1:])
    write(tmp_path / "data-64/examples/validation", "examples", rows[:1])
    made(tmp_path).run(SFT, rationales=MANY)
    assert jobs.names == ["train", "score"]
    folder = jobs.calls[0][1].examples
    assert folder == str(tmp_path / "data-64/with-reasons")
    assert read_table(f"{folder}/train", "examples")["rationale"].to_pylist() == ["because u1", "because u2"]
    assert read_table(f"{folder}/validation", "examples")["example_id"].to_pylist() == ["u0/t"]
