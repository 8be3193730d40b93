import dataclasses
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.config import from_flags
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.answer_spec import prompt_spec, read_label_prior
from artsel_ray.score.job import resolve_answer_spec
from artsel_ray.score.settings import ScoreConfig, ScorePrompt
from tests.support.evaluation_tables import prediction, write

LABELS = PromptSpec(output="number")


def config(**flags: Any) -> ScoreConfig:
    return from_flags(ScoreConfig, **{"requests": "r", "titles": "t", "artworks": "a", "output": "o", **flags})


def spec_of(model: Model, decoding: str = "choose", **prompt: Any) -> PromptSpec:
    return prompt_spec(model, "m", ScorePrompt(**prompt), decoding)


def test_flags_make_the_prompt_of_a_model_without_a_spec(smollm2: Model) -> None:
    assert spec_of(smollm2, layout="user_first", history_length=7) == PromptSpec(layout="user_first", history_length=7)
    assert spec_of(smollm2) == PromptSpec()


def test_labels_need_a_model_that_answers_with_numbers(smollm2: Model) -> None:
    assert spec_of(smollm2, "labels").output == "number"
    with pytest.raises(InputError, match="answers with a number"):
        spec_of(smollm2, "labels", output_format="text")


def write_labels(path: Path, fingerprint: str = "f0", manifest: bool = True, **run: Any) -> str:
    """Writes a finished run of labels with one pair."""
    listed = [{"artwork_id": "a", "probability": 0.8}, {"artwork_id": "b", "probability": 0.2}]
    row = prediction("u1", "t1", "a", 0.8) | {"candidates": listed, "fingerprint": fingerprint}
    uri = write(path, "predictions", [row])
    identity = {"model": "m", "prompt": dataclasses.asdict(LABELS), **run}
    storage.write_json(f"{uri}/config.json", {"run": identity, "config": {}})
    storage.write_json(f"{uri}/summary.json", {"layout": "title_first"})
    if manifest:
        storage.write_manifest(uri, {"parts": ["part-0.parquet"], "decoding": "labels"})
    return uri


def test_label_prior_is_read_from_finished_runs_of_labels_only(tmp_path: Path) -> None:
    uri = write_labels(tmp_path / "P", manifest=False)
    with pytest.raises(InputError, match="is not a finished run of"):
        read_label_prior([uri], "m", LABELS, False)
    storage.write_manifest(uri, {"parts": [], "decoding": "rank"})
    with pytest.raises(InputError, match="is not a finished run of"):
        read_label_prior([uri], "m", LABELS, False)
    storage.write_manifest(uri, {"parts": [], "decoding": "labels"})
    with pytest.raises(InputError, match="has no predictions"):
        read_label_prior([uri], "m", LABELS, False)
    storage.write_manifest(uri, {"parts": ["part-0.parquet"], "decoding": "labels"})
    assert read_label_prior([uri], "m", LABELS, False) == pytest.approx((2, 0.5))


def test_label_prior_of_other_answers_is_refused(tmp_path: Path) -> None:
    uri = write_labels(tmp_path / "P")
    with pytest.raises(InputError, match="is of the model m, not of other"):
        read_label_prior([uri], "other", LABELS, False)
    with pytest.raises(InputError, match="has another prompt, which differs in: history_length"):
        read_label_prior([uri], "m", dataclasses.replace(LABELS, history_length=3), False)
    user_first = dataclasses.replace(LABELS, layout="user_first")
    with pytest.raises(InputError, match="has another prompt, which differs in: layout"):
        read_label_prior([uri], "m", user_first, False)
    assert read_label_prior([uri], "m", user_first, True)
    divided = write_labels(tmp_path / "divided", label_prior=[1.0, 1.0])
    with pytest.raises(InputError, match="has a prior divided out already"):
        read_label_prior([divided], "m", LABELS, False)


def test_the_same_run_twice_is_no_second_permutation(tmp_path: Path) -> None:
    first, copy, other = (write_labels(tmp_path / name, f"f{name == 'other'}") for name in ("first", "copy", "other"))
    assert read_label_prior([first, other], "m", LABELS, False)
    for twice in (first, copy):
        with pytest.raises(InputError, match=r"has the same pairs in the same order of candidates as .*/first"):
            read_label_prior([first, other, twice], "m", LABELS, False)


def test_the_same_questions_are_known_under_keys_of_their_own(tmp_path: Path) -> None:
    first, second = (write_labels(tmp_path / name, name) for name in ("first", "second"))
    assert read_label_prior([first, second], "m", LABELS, False)
    storage.write_manifest(second, {**(storage.read_manifest(second) or {}), "fingerprints": "keyed"})
    with pytest.raises(InputError, match=r"has the same pairs in the same order of candidates as .*/first"):
        read_label_prior([first, second], "m", LABELS, False)


def test_prompt_of_a_trained_model_cannot_be_contradicted(smollm2: Model) -> None:
    trained = Model(smollm2.path, smollm2.model_id, PromptSpec(layout="user_first", history_length=7))
    assert spec_of(trained) == trained.spec
    assert spec_of(trained, layout="user_first") == trained.spec
    with pytest.raises(InputError, match="trained for another prompt than asset_kind trailer"):
        spec_of(trained, asset_kind="trailer")
    with pytest.raises(InputError, match="trained for another prompt than layout title_first"):
        spec_of(trained, layout="title_first")
    with pytest.raises(InputError, match="answers with a number"):
        spec_of(trained, "labels")
    with pytest.raises(InputError, match="--layout auto: m was trained for user_first only"):
        spec_of(trained, layout="auto")


def test_images_are_answered_with_numbers_and_follow_their_title(smollm2: Model) -> None:
    assert spec_of(smollm2, assets="image") == PromptSpec(assets="image", output="number")
    for wrong, message in (
        ({"output_format": "text"}, "--output-format number"),
        ({"layout": "user_first"}, "title_first"),
        ({"layout": "auto"}, "--layout auto: with images the title always comes first"),
    ):
        with pytest.raises(InputError, match=message):
            spec_of(smollm2, assets="image", **wrong)
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        resolve_answer_spec(config(model="smollm2", assets="image"))


def test_length_is_the_models_at_most_and_a_fake_engine_has_its_own_id(smollm2: Model) -> None:
    answer_spec = resolve_answer_spec(config(model="smollm2", max_model_length=100_000))
    assert (answer_spec.max_model_length, answer_spec.model_id) == (8192, smollm2.model_id)
    answer_spec = resolve_answer_spec(config(model="smollm2", max_model_length=512, engine="fake"))
    assert (answer_spec.max_model_length, answer_spec.model_id) == (512, "fake")
