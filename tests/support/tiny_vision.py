"""Tiny vision-language models with random weights and SmolLM2's tokenizer, which every engine loads in seconds."""

from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}PLACEHOLDER{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 2048, "initializer_range": 0.3, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
VISION = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip


def write_tiny_vision(kind: str, smollm2: Path, to: Path) -> str:
    """Writes a model with its processor into a folder; returns the folder's path.

    Args:
        kind: `gemma3`, `idefics3` or `mllama`.
        smollm2: folder of the tokenizer.
    """
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    {"gemma3": _gemma3, "idefics3": _idefics3, "mllama": _mllama}[kind](tokenizer, to)
    return str(to)


def _idefics3(tokenizer, to: Path) -> None:  # type: ignore[no-untyped-def]
    grid = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    placeholders = ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *grid]
    tokenizer.add_special_tokens({"additional_special_tokens": placeholders})
    config = Idefics3Config(
        text_config={"model_type": "llama", "head_dim": 32, "vocab_size": len(tokenizer), **TEXT},
        vision_config=VISION,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=2,
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(to)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = CHAT_TEMPLATE.replace("PLACEHOLDER", "<image>")
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template).save_pretrained(to)


def _gemma3(tokenizer, to: Path) -> None:  # type: ignore[no-untyped-def]
    placeholders = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer.add_special_tokens({"additional_special_tokens": list(placeholders.values())})
    tokenizer._set_model_specific_special_tokens(placeholders)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in placeholders.items()}
    text = {name: value for name, value in TEXT.items() if not name.endswith("_token_id")}
    config = Gemma3Config(
        text_config={
            "head_dim": 32, "vocab_size": len(tokenizer), "sliding_window": 512, "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention"], **text,
        },
        vision_config=VISION,
        mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"], eoi_token_index=ids["eoi_token"], image_token_index=ids["image_token"],
    )  # fmt: skip
    Gemma3ForConditionalGeneration(config).save_pretrained(to)
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    template = CHAT_TEMPLATE.replace("PLACEHOLDER", "<start_of_image>")
    Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4).save_pretrained(to)


def _mllama(tokenizer, to: Path) -> None:  # type: ignore[no-untyped-def]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    vision = {name: value for name, value in VISION.items() if name != "num_attention_heads"}
    config = MllamaConfig(
        text_config={
            "vocab_size": len(tokenizer), "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, **TEXT,
        },
        vision_config={
            "attention_heads": 2, "num_global_layers": 1, "max_num_tiles": 4, "intermediate_layers_indices": [0],
            "vision_output_dim": 128, **vision,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():  # cross-attention gates start at 0, so images would change nothing
        for name, weight in model.named_parameters():
            if "gate" in name and weight.numel() == 1:
                weight.fill_(1.0)
    model.save_pretrained(to)
    images = MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=4)
    template = CHAT_TEMPLATE.replace("PLACEHOLDER", "<|image|>")
    MllamaProcessor(images, tokenizer, chat_template=template).save_pretrained(to)
