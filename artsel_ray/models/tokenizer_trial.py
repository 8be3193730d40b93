"""What the process with limits does with a tokenizer: a module of its own, so that only it imports so much."""

import string

from transformers import PreTrainedTokenizerFast

# More than prompts hold of any one text; patterns that go back and forth do so in texts that repeat themselves.
_LETTERS = 16_384
_REPEATED = ("a", "A", " ", "7", ".", "\n", "é", "ab ", "a1 B.\n", "七", "_-", string.printable)


def encode(folder: str) -> None:
    """Reads a tokenizer, and encodes and decodes texts."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text in _REPEATED:
        ids = tokenizer([text * (_LETTERS // len(text))], split_special_tokens=True)["input_ids"]
        tokenizer.batch_decode(ids)
