"""Text from data as token ids that cannot spell the markers of a chat template.

Many templates mark a turn with ordinary text, `[/INST]` or `### Response:`, which has the same ids wherever it stands.
Such markers are learned from what the template itself writes, and broken in data.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from artsel_ray.errors import InputError
from artsel_ray.prompts.escaping import escape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_METASPACE = "\u2581"  # what many normalizers make of a space
_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_STRUCTURE = rf"[<>{_LINE_BREAKS}]|(?:prediction|reason)\s*[:：]"
# Punctuation of sentences, around a word or in it, marks nothing.
_SENTENCE = ".,;!?…'\"“”‘’"
_ANGLED, _BRACKETED = re.compile(r"<[^<>\s]*>"), re.compile(r"\[[^\[\]]+\]")
_WITHIN_WORDS = re.compile(r"(?<=\w)['’.,/&+%-](?=\w)")
_MAX_ROUNDS = 4


class DataTokenizer:
    """Tokenizes text from data, escaped before, by a model's tokenizer without its added tokens.

    - A text never gets the id of an added token, special or not.
    - In what the tokenizer's normalizer makes of a text, the punctuation of the template's markers becomes dashes, and
      structure that only the normalizer brought to light is escaped again.
    - Other texts have the ids that the tokenizer itself gives them.

    Raises:
        InputError: if it is no tokenizer of the library tokenizers.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: Sequence[str]) -> None:
        """Learns the markers.

        Args:
            template: what the chat template writes around the contents of messages.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InputError("the model's tokenizer cannot be read without its added tokens; add a tokenizer.json")
        self._plain = Tokenizer(backend.model)
        self._normalizer = self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        added = backend.get_added_tokens_decoder()
        # Runs of white space, which text from data does not have: what surrounds it keeps its ids.
        spaces = [token for i, token in added.items() if backend.model.token_to_id(token.content) == i]
        self._plain.add_tokens([token for token in spaces if not token.content.strip()])
        signed = {token.content for token in added.values() if len(token.content) > 1 and _has_sign(token.content)}
        self._reserved = {i for i, token in added.items() if token.special or token.content in signed}
        # What a vocabulary gives letters that it lacks.
        unknown = getattr(backend.model, "unk_token", tokenizer.unk_token)
        self._reserved -= {backend.token_to_id(unknown or "")} - {tokenizer.eos_token_id}

        lines = [line for text in template for line in text.splitlines()]
        # What stands for a line break in a normalizer that writes it as a letter.
        line_break = self._normal("\n").strip()
        found = {marker for line in lines for marker in _markers(self._normal(line))}
        found |= {self._normal(content).strip() for content in signed} | {line_break}
        self._signs = {sign for marker in found for sign in marker if _is_sign(sign)}
        self._dash = next((dash for dash in "-·~=" if dash not in self._signs), " ")
        self._structure = re.compile("|".join([_STRUCTURE, *_patterns(found)]), re.IGNORECASE)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text; its line breaks are taken for wording, since escaped data has none."""
        encodings = self._plain.encode_batch_fast([self.plain(text) for text in texts], add_special_tokens=False)
        return [self._unreserved(encoding.ids) for encoding in encodings]

    def plain(self, text: str) -> str:
        """Returns a text without anything that its normal form spells of a prompt's structure."""
        return "\n".join(map(self._plain_line, text.split("\n")))

    def _plain_line(self, line: str) -> str:
        indent = line[: len(line) - len(line.lstrip())]
        for _ in range(_MAX_ROUNDS):
            normal = self._normal(line)
            if not self._structure.search(normal):
                return line
            line = indent + self._structure.sub(self._dashed, escape(normal))
        # Another normalizer than any that is known. Letters alone, and nothing if they become signs again.
        letters = "".join(letter if letter.isalnum() else " " for letter in line)
        return indent + letters.strip() if not self._structure.search(self._normal(letters)) else indent

    def _normal(self, line: str) -> str:
        normal = self._normalizer.normalize_str(line) if self._normalizer else line
        return normal.replace(_METASPACE, " ")

    def _dashed(self, match: re.Match[str]) -> str:
        return "".join(self._dash if letter in self._signs else letter for letter in match[0])

    def _unreserved(self, ids: list[int]) -> list[int]:
        return ids if self._reserved.isdisjoint(ids) else [i for i in ids if i not in self._reserved]


def _markers(line: str) -> Iterable[str]:
    """Returns what marks a turn in a line of a template: words with signs that do not belong to a sentence.

    `### Response:` gives `###` and `Response:`; a single sign belongs to its neighbor, as in `# User` and `USER :`.
    """
    words = _ANGLED.sub(" ", line).split()
    for index, word in enumerate(words):
        core = word.strip(_SENTENCE)
        yield from _BRACKETED.findall(core)
        if len(core) == 1:
            following, before = words[index + 1 : index + 2], words[max(index - 1, 0) : index]
            neighbors = [core, *following] if following else [*before, core]
            core = " ".join(neighbors) if len(neighbors) > 1 else ""
        elif core.count("(") != core.count(")"):
            core = core.strip("()")
        if _has_sign(_WITHIN_WORDS.sub("", core)):
            yield core


def _patterns(markers: Iterable[str]) -> list[str]:
    """Returns regular expressions that match markers with any white space between their words and signs.

    One expression for all markers with the same first letter: some tokenizers have a thousand.
    """
    parts = [re.findall(r"[^\W_]+|[\W_]", "".join(marker.split())) for marker in markers]
    # Angle brackets are escaped wherever they stand in data.
    broken = [each for each in parts if _has_sign("".join(each)) and not {"<", ">"} & set(each)]
    spelled = sorted(r"\s*".join(map(re.escape, each)) for each in broken)

    def first(pattern: str) -> str:
        return pattern[: 2 if pattern.startswith("\\") else 1]

    groups = [(key, [pattern[len(key) :] for pattern in group]) for key, group in groupby(spelled, first)]
    return [f"{key}(?:{'|'.join(rest)})" for key, rest in groups]


def _has_sign(text: str) -> bool:
    return any(map(_is_sign, text))


def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PS"
