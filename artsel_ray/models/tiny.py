"""A Llama small enough to train from nothing in minutes on a CPU, for trying things out."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage

_WORD = re.compile(r"[^\W\d_]{3,}")
_SAYS_NOTHING = {"the", "and", "watched", "min"}
# A digit is seen only where it is an option's number: after a space and before a point or the end.
_NUMBER = r"(?<![^\s])\d(?=\.|$)"


def write_tiny(titles: str, artworks: str, to: Path) -> None:
    """Writes a model of about 100,000 random weights: 2 layers of 64, tokens are the words of this catalogue.

    It sees words in one case and nothing else: what is in no title, genre or caption, dates and the instruction, are
    left out of its prompts.

    Args:
        titles: URI of the titles.
        artworks: URI of the artworks with their captions.
        to: the model's folder.
    """
    import torch
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = _words(titles, artworks)
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokens = [*special, *map(str, range(10)), *words]
    pieces = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    pieces.normalizer = normalizers.Lowercase()
    seen = Regex(rf"\b(?:{'|'.join(sorted(words, key=len, reverse=True))})\b|{_NUMBER}")
    pieces.pre_tokenizer = pre_tokenizers.Split(seen, behavior="removed", invert=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(to)
    tokenizer.save_pretrained(to)


def _words(titles: str, artworks: str) -> list[str]:
    table = storage.read_table(titles, "titles")
    genres = pa.chunked_array([pc.list_flatten(table["genres"].combine_chunks())])
    texts = [table["name"], genres, storage.read_table(artworks, "artworks")["caption"].drop_null()]
    found = {word for column in texts for text in column.to_pylist() for word in _WORD.findall(text.lower())}
    return sorted(found - _SAYS_NOTHING)
