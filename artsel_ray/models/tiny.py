"""A Llama small enough to train from random weights in minutes on a CPU, for tests and benchmarks."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data.checked_reader import read_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_WORD = re.compile(r"[^\W\d_]{3,}")
_STOP_WORDS = {"the", "and", "watched", "min"}
# A digit is a token only where it is an option's number: after a space and before a period or the end.
_NUMBER = r"(?<![^\s])\d(?=\.|$)"


def write_tiny(titles: str, artworks: str, to: Path) -> None:
    """Writes a model of about 100,000 random weights: 2 layers of 64, tokens are the words of this catalog.

    It reads words in lower case and ignores all others: dates and the instruction, and what is in no title, genre or
    caption, leave no token in its prompts.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(_words(titles, artworks))
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(to)
    tokenizer.save_pretrained(to)


def _tokenizer(words: list[str]) -> "PreTrainedTokenizerFast":
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<unk>", "<s>", "</s>", "<pad>", *map(str, range(10)), *words]
    word_level = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    word_level.normalizer = normalizers.Lowercase()
    # The longest word first, so that no word is read as the one that it begins with.
    kept = Regex(rf"\b(?:{'|'.join(sorted(words, key=len, reverse=True))})\b|{_NUMBER}")
    word_level.pre_tokenizer = pre_tokenizers.Split(kept, behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=word_level, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def _words(titles: str, artworks: str) -> list[str]:
    """Returns the distinct words of names, genres and captions, sorted."""
    table = read_table(titles, "titles", ["name", "genres"])
    genres = pa.chunked_array([pc.list_flatten(table["genres"].combine_chunks())])
    texts = [table["name"], genres, read_table(artworks, "artworks", ["caption"])["caption"].drop_null()]
    found = {word for column in texts for text in column.to_pylist() for word in _WORD.findall(text.lower())}
    return sorted(found - _STOP_WORDS)
