import dataclasses
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.config import PromptSettings
from artsel_ray.errors import InputError
from artsel_ray.models.spec import read_spec, resolve_prompt_spec, write_spec
from artsel_ray.prompts.spec import PromptSpec


def test_spec_round_trips(tmp_path: Path) -> None:
    spec = PromptSpec(layout="user_first", output="number", reason=True, history_length=7)
    write_spec(str(tmp_path), spec)
    assert read_spec(str(tmp_path)) == spec


def test_spec_without_asset_kind_is_of_artworks(tmp_path: Path) -> None:
    values = dataclasses.asdict(PromptSpec(layout="user_first"))
    del values["asset_kind"]
    storage.write_json(str(tmp_path / "spec.json"), values)
    assert read_spec(str(tmp_path)) == PromptSpec(layout="user_first")


def test_absent_spec_is_none(tmp_path: Path) -> None:
    assert read_spec(str(tmp_path)) is None


@pytest.mark.parametrize("change", [{"template": "paper-0"}, {"color": "red"}])
def test_other_versions_are_refused(tmp_path: Path, change: dict[str, str]) -> None:
    storage.write_json(str(tmp_path / "spec.json"), {**dataclasses.asdict(PromptSpec()), **change})
    with pytest.raises(InputError, match="version"):
        read_spec(str(tmp_path))


def test_earlier_name_of_a_field_is_read(tmp_path: Path) -> None:
    values = dataclasses.asdict(PromptSpec(resize_to_pixels=1000))
    values["kept_pixels"] = values.pop("resize_to_pixels")
    storage.write_json(str(tmp_path / "spec.json"), values)
    assert read_spec(str(tmp_path)) == PromptSpec(resize_to_pixels=1000)


def test_flags_change_a_trained_prompt() -> None:
    own = PromptSpec(layout="user_first", reason=True)
    assert resolve_prompt_spec(own, PromptSettings()) == own
    changed = resolve_prompt_spec(own, PromptSettings(output_format="number", history_length=7))
    assert changed == PromptSpec(layout="user_first", output="number", reason=True, history_length=7)


def test_model_without_a_prompt_has_the_default_one() -> None:
    assert resolve_prompt_spec(None, PromptSettings()) == PromptSpec()
    assert resolve_prompt_spec(None, PromptSettings(), reason=True) == PromptSpec(reason=True)
    assert resolve_prompt_spec(None, PromptSettings(), reason=None, output=None) == PromptSpec()
    # Images are answered with numbers, which nobody needs to ask for.
    assert resolve_prompt_spec(None, PromptSettings(assets="image")) == PromptSpec(assets="image", output="number")


def test_prompt_that_must_match_refuses_other_flags() -> None:
    own = PromptSpec(layout="user_first", history_length=7)
    assert resolve_prompt_spec(own, PromptSettings(layout="user_first"), must_match="m") == own
    with pytest.raises(InputError, match="m was trained for another prompt than layout title_first, output number;"):
        resolve_prompt_spec(own, PromptSettings(layout="title_first", output_format="number"), must_match="m")
    # A model without a prompt of its own has nothing to match.
    assert resolve_prompt_spec(None, PromptSettings(history_length=3), must_match="m") == PromptSpec(history_length=3)
