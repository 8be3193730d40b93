"""A text's vector is what plain transformers computes, whatever else is in its batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from artsel_ray.engines.text_encoder import TextEncoder
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from tests.support.training import TinyLlama

TEXTS = ["Two friends laugh by the sea.", "", "A red tower.", "A lonely house at night, and nobody <|end|> there."]


def test_vector_is_the_mean_over_tokens_and_three_middle_layers(tiny_llama: TinyLlama) -> None:
    model = load(tiny_llama(True), options=False)
    vectors = TextEncoder(model).encode(TEXTS)
    assert vectors.shape == (4, 64)
    assert not vectors[1].any()
    plain, tokenizer = (
        AutoModelForCausalLM.from_pretrained(model.base),
        PreTrainedTokenizerFast.from_pretrained(model.base),
    )
    for index in (0, 2, 3):
        ids = tokenizer(TEXTS[index], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        states = plain(torch.tensor([ids]), output_hidden_states=True).hidden_states
        # Of two layers those at 1, 1.33 and 1.67, rounded.
        expected = torch.stack([states[1], states[1], states[2]]).mean(0)[0].mean(0)
        np.testing.assert_allclose(vectors[index], expected.detach(), atol=1e-5)


def test_model_that_answers_with_nan_is_an_error(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    encoder = TextEncoder(load(tiny_llama(True), options=False))
    with torch.no_grad():
        encoder._model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        encoder.encode(TEXTS)
