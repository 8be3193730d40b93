import dataclasses
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.spec import read_spec, write_spec
from artsel_ray.prompts.spec import PromptSpec


def test_round_trip(tmp_path: Path) -> None:
    spec = PromptSpec(layout="user_first", output="number", reason=True, history_length=7)
    write_spec(str(tmp_path), spec)
    assert read_spec(str(tmp_path)) == spec


def test_one_from_before_there_were_kinds_of_assets_is_of_artworks(tmp_path: Path) -> None:
    values = dataclasses.asdict(PromptSpec(layout="user_first"))
    del values["asset_kind"]
    storage.write_json(str(tmp_path / "spec.json"), values)
    assert read_spec(str(tmp_path)) == PromptSpec(layout="user_first")


def test_absent(tmp_path: Path) -> None:
    assert read_spec(str(tmp_path)) is None


@pytest.mark.parametrize("change", [{"template": "paper-0"}, {"colour": "red"}])
def test_another_version_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    storage.write_json(str(tmp_path / "spec.json"), {**dataclasses.asdict(PromptSpec()), **change})
    with pytest.raises(InputError, match="version"):
        read_spec(str(tmp_path))
