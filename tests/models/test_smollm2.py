import json

import torch
from transformers import AutoModelForCausalLM

from artsel_ray.models.load import Model


def test_smollm2_is_a_float32_llama_with_option_tokens(smollm2: Model) -> None:
    config = json.loads((smollm2.path / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == ("llama", 49154)
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(smollm2.path)
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().num_embeddings == 49154
