"""Training on top of a prior: its loss, what is fitted and written at the end, and priors that do not fit."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from artsel_ray import storage
from artsel_ray.decoding.trie import build, rank
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import read_prior_weights
from artsel_ray.schema import PREDICTIONS
from artsel_ray.train.job import train
from tests.support.training import TinyLlama, changed, example_row, losses_of, train_config, write_examples

ARTWORKS = ["a0", "a1", "a2"]


def write_prior(folder: Path, rows: list[dict[str, Any]], right: float = 0.8) -> str:
    """Writes train/ and validation/ of a prior that gives each example's label so much probability."""
    for split in ("train", "validation"):
        predictions = []
        for row in rows:
            other = (1 - right) / 2
            listed = [
                {"artwork_id": name, "probability": right if n == row["label"] else other}
                for n, name in enumerate(ARTWORKS)
            ]
            predictions.append(
                {
                    "user_id": row["user_id"], "title_id": row["title_id"], "artwork_id": "a0", "candidates": listed,
                    "model_id": "net@1", "fingerprint": "f", "scored_at": datetime.datetime.now(datetime.UTC),
                }
            )  # fmt: skip
        storage.write_table(str(folder / split / "a.parquet"), pa.Table.from_pylist(predictions, PREDICTIONS),
                            "predictions")  # fmt: skip
    return str(folder)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Examples whose labels have nothing to do with what the model sees."""
    return [
        example_row(n % 3, label=(n * 7 // 5) % 3, user_id=f"u{n}", title_id=f"t{n % 2}", title_name=f"T{n % 2}")
        for n in range(48)
    ]


@pytest.fixture
def config(rows: list[dict[str, Any]], tiny_llama: TinyLlama, tmp_path: Path) -> Any:
    write_examples(tmp_path / "E/train", rows[:24])
    write_examples(tmp_path / "E/validation", rows[24:])
    prior = write_prior(tmp_path / "prior", rows)
    return train_config(
        str(tmp_path / "E"), tiny_llama(True), tmp_path / "T", method="choice", max_steps=2, checkpoint_steps=1,
        batch_size=24, micro_batch=24, validation_size=24, prior=prior, group_size=1, shuffle_candidates=True,
    )  # fmt: skip


def test_first_loss_is_that_of_the_softmax_of_both(config: Any, rows: list[dict[str, Any]]) -> None:
    from artsel_ray.models.load import load
    from artsel_ray.models.weights import read_model
    from artsel_ray.train.reading import read_train
    from tests.support.training import prompts_of

    train(changed(config, shuffle_candidates=False))
    base = load(config.model)
    prompts = prompts_of(base)
    examples = read_train(f"{config.examples}/train", prompts, 2048, 0, False)
    tries = [build(examples.answers(n), prompts.option_end) for n in range(24)]
    engine = TorchEngine(read_model(base.base, torch.float32))
    expected = []
    for n, probability_m in enumerate(rank(engine, [examples.prompt(n) for n in range(24)], tries)):
        prior_m = np.where(np.arange(3) == rows[n]["label"], 0.8, 0.1)
        expected.append(-np.log((probability_m * prior_m)[rows[n]["label"]] / (probability_m * prior_m).sum()))
    assert losses_of(config.output)[0] == pytest.approx(np.mean(expected), abs=1e-4)


def test_weights_are_fitted_on_validation_and_written(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = train(config)
    assert metrics["validation_accuracy"] == 1.0  # the prior knows, the model cannot
    found = read_prior_weights(config.output)
    assert found is not None
    assert found.known_titles == {"t0", "t1"}
    assert found.prior_ids == ("net@1",)
    assert found.known == found.new  # validation has no new title
    assert found.known[1] > 0.5
    assert "model and prior count" in capsys.readouterr().out
    # Without it in the loss, the model is trained as ever, and judged together with the prior at the end.
    alone = changed(config, prior_in_loss=False, output=config.output + "-alone")
    plain = changed(config, prior=None, output=config.output + "-plain")
    assert train(alone)["validation_accuracy"] == 1.0
    assert train(plain)["validation_accuracy"] < 0.9
    np.testing.assert_allclose(losses_of(alone.output), losses_of(plain.output), atol=1e-5)
    assert read_prior_weights(plain.output) is None


def test_prior_that_does_not_fit_is_told(config: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    other = write_prior(tmp_path / "other", [{**row, "user_id": "nobody"} for row in rows])
    with pytest.raises(InputError, match=r"--prior knows none of the pairs of .*E/train; was it made from these"):
        train(changed(config, prior=other))
    write_prior(tmp_path / "half", rows[:12] + rows[30:])
    with pytest.raises(InputError, match="holds another run, which differs in: prior"):
        train(changed(config, prior=str(tmp_path / "half")))
    half = changed(config, prior=str(tmp_path / "half"), output=config.output + "-half")
    train(half)
    told = storage.read_json(f"{half.output}/summary.json")["notices"]
    assert any("--prior does not know 12 of 24 examples" in each for each in told)


def test_prior_that_has_seen_the_train_examples_is_a_warning(
    config: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    write_prior(seen, rows, right=0.99)
    weak = write_prior(tmp_path / "weak", rows, right=0.4)
    (Path(weak) / "train/a.parquet").write_bytes((seen / "train/a.parquet").read_bytes())
    train(changed(config, prior=weak))
    told = storage.read_json(f"{config.output}/summary.json")["notices"]
    assert any("it has seen the train examples" in each for each in told)


def test_prior_is_for_the_method_choice(config: Any) -> None:
    with pytest.raises(InputError, match="--prior is for --method choice, and --method is sft"):
        changed(config, method="sft")
    with pytest.raises(InputError, match="--no-prior-in-loss is for --prior; add it"):
        changed(config, prior=None, prior_in_loss=False)
