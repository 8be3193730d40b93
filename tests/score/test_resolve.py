from dataclasses import replace
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.resolve import check, model_length, prompt_spec, read_label_prior, resolve
from artsel_ray.score.settings import ScoreConfig

CONFIG = ScoreConfig(requests="r", titles="t", artworks="a", output="o", model="m")


def test_flags_make_the_prompt_of_a_model_without_one(smollm2: Model) -> None:
    config = replace(CONFIG, layout="user_first", history_length=7)
    assert prompt_spec(config, smollm2) == PromptSpec(layout="user_first", history_length=7)
    assert prompt_spec(CONFIG, smollm2) == PromptSpec()


def test_labels_ask_for_numbers(smollm2: Model) -> None:
    assert prompt_spec(replace(CONFIG, decoding="labels"), smollm2).output == "number"
    with pytest.raises(InputError, match="answers with numbers"):
        prompt_spec(replace(CONFIG, decoding="labels", output_format="text"), smollm2)


def test_a_label_prior_is_for_labels_and_of_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add --decoding labels"):
        check(replace(CONFIG, label_prior=("a",), decoding="rank"))
    for manifest in (None, {"parts": [], "decoding": "rank"}):
        if manifest:
            storage.write_manifest(str(tmp_path), manifest)
        with pytest.raises(InputError, match="is no finished run of"):
            read_label_prior([str(tmp_path)])
    storage.write_manifest(str(tmp_path), {"parts": [], "decoding": "labels"})
    with pytest.raises(InputError, match="no prediction there"):
        read_label_prior([str(tmp_path)])


def test_a_trained_models_prompt_is_obeyed_and_no_other(smollm2: Model) -> None:
    trained = Model(smollm2.path, smollm2.model_id, PromptSpec(layout="user_first", history_length=7))
    assert prompt_spec(CONFIG, trained) == trained.spec
    assert prompt_spec(replace(CONFIG, layout="user_first"), trained) == trained.spec
    with pytest.raises(InputError, match="trained for another prompt than asset_kind trailer"):
        prompt_spec(replace(CONFIG, asset_kind="trailer"), trained)
    with pytest.raises(InputError, match="trained for another prompt than layout title_first"):
        prompt_spec(replace(CONFIG, layout="title_first"), trained)
    with pytest.raises(InputError, match="answers with numbers"):
        prompt_spec(replace(CONFIG, decoding="labels"), trained)
    with pytest.raises(InputError, match="--layout auto: m was trained for user_first alone"):
        prompt_spec(replace(CONFIG, layout="auto"), trained)


def test_the_models_length_is_read_from_its_config(smollm2: Model) -> None:
    assert model_length(smollm2) == 8192


def test_pictures_are_answered_with_numbers_and_come_after_their_title(smollm2: Model) -> None:
    config = replace(CONFIG, assets="image")
    assert prompt_spec(config, smollm2) == PromptSpec(assets="image", output="number")
    for wrong, said in (
        (replace(config, output_format="text"), "a number, not text"),
        (replace(config, layout="user_first"), "with --layout user_first a shard holds every title's pictures"),
        (replace(config, layout="auto"), "--layout auto: with pictures the title comes first"),
    ):
        with pytest.raises(InputError, match=said):
            prompt_spec(wrong, smollm2)
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        resolve(replace(config, model="smollm2"))
