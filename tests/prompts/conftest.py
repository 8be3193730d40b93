"""The bundled model's tokenizer, for every test of prompts."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from artsel_ray.models.load import Model


@pytest.fixture(scope="session")
def tokenizer(smollm2: Model) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2.path)
