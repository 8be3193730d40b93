from pathlib import Path

import pytest
from transformers import Trainer, TrainingArguments

from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.train.export import Export, export
from tests.support.training import TinyLlama


def test_trained_weights_load_with_their_prompt(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    base = load(tiny_llama(True))
    trainer = Trainer(read_model(base.path, "auto"), TrainingArguments(str(tmp_path / "scratch"), use_cpu=True))
    spec = PromptSpec(layout="user_first")
    export(trainer, Export(str(tmp_path / "T"), base, "tiny", spec, has_adapter=False))
    trained = load(str(tmp_path / "T"))
    assert trained.path == tmp_path / "T/merged"
    assert trained.spec == spec
    assert (trained.path / "model.safetensors").read_bytes() == (base.path / "model.safetensors").read_bytes()
    # The arguments are a pickle, and are left out.
    assert not list((tmp_path / "T").rglob("*.bin"))


def test_other_workers_write_nothing(tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load(tiny_llama(True))
    trainer = Trainer(read_model(base.path, "auto"), TrainingArguments(str(tmp_path / "scratch"), use_cpu=True))
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    export(trainer, Export(str(tmp_path / "T"), base, "tiny", PromptSpec(), has_adapter=False))
    assert not (tmp_path / "T").exists()
