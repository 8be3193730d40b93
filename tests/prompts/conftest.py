"""A tokenizer with Llama 3's special tokens and template."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from artsel_ray.prompts import text as render
from artsel_ray.prompts.escaping import OPTION, OPTION_END

_LLAMA_3 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@pytest.fixture(scope="session")
def llama_3() -> PreTrainedTokenizerBase:
    """Bytes and a few merges; Llama 3's special tokens, ours, and its chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special += ["[INST]", "[/INST]"]  # Mistral's, without the angle brackets that are escaped
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False)
    # Its vocabulary has the words of its markers too, as any large vocabulary does.
    words = [
        render.instruction("artwork"),
        render.HISTORY_HEAD,
        render.PREDICTION,
        "<option> start_header_id eot_id |> <|",
    ]
    bpe.train_from_iterator(words * 3, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=special[0], eos_token="<|eot_id|>")
    made.add_special_tokens({"additional_special_tokens": [*special[1:], OPTION, OPTION_END]})
    made.chat_template = _LLAMA_3
    return made
