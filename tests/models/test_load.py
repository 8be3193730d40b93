import shutil
from pathlib import Path

import pytest

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, load
from artsel_ray.models.spec import write_spec
from artsel_ray.prompts.spec import PromptSpec


def test_smollm2_is_named_by_its_digest(smollm2: Model) -> None:
    assert smollm2.model_id.startswith("smollm2@")
    assert smollm2.spec is None
    assert load("smollm2") == smollm2


def test_training_output_brings_its_prompt(smollm2: Model, tmp_path: Path) -> None:
    spec = PromptSpec(layout="user_first", output="number")
    write_spec(str(tmp_path), spec)
    (tmp_path / "merged").symlink_to(smollm2.path)
    trained = load(str(tmp_path))
    assert trained.spec == spec
    assert trained.model_id.split("@")[1] == smollm2.model_id.split("@")[1]


def test_model_without_option_tokens_is_left_as_it_is_on_request(bare_model: Path) -> None:
    assert load(str(bare_model), options=False).path == bare_model


def test_model_with_option_tokens_is_left_as_it_is(ready_model: Path) -> None:
    assert load(str(ready_model)).path == ready_model


def test_absent_model_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="nor available from the hub"):
        load("nobody/nothing")
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match="no config"):
        load(str(tmp_path))
