from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from artsel_ray.models.load import Model, load
from artsel_ray.models.option_tokens import has_options
from artsel_ray.prompts.escaping import OPTION, OPTION_END


def test_new_rows_are_the_mean_of_the_subword_tokens_that_spelled_them(
    bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    ready = load(str(bare_model))
    tokenizer = AutoTokenizer.from_pretrained(ready.path)
    before = AutoModelForCausalLM.from_pretrained(bare_model)
    after = AutoModelForCausalLM.from_pretrained(ready.path)
    for token in (OPTION, OPTION_END):
        row = tokenizer.convert_tokens_to_ids(token)
        spelled = tokenizer(token, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [row]
        for old, new in (
            (before.get_input_embeddings(), after.get_input_embeddings()),
            (before.get_output_embeddings(), after.get_output_embeddings()),
        ):
            was, now = torch.as_tensor(old.weight), torch.as_tensor(new.weight)
            torch.testing.assert_close(now[row], was[spelled].mean(dim=0))
            torch.testing.assert_close(now[:49152], was)
    assert load(str(ready.path)).path == ready.path


def test_option_tokens_are_recognized(bare_model: Path, smollm2: Model) -> None:
    assert has_options(smollm2.path)
    assert not has_options(bare_model)
    (bare_model / "tokenizer.json").unlink()
    assert not has_options(bare_model)
