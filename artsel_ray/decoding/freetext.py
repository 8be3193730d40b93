"""The paper's decoder: generate an answer freely, then choose the candidate with the most similar text."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artsel_ray.config import Output
from artsel_ray.decoding.base import Choices, QuestionCost, Questions

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine

_WORD = re.compile(r"\w+")
_MAX_WORDS = 3


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """Returns the multiset of a text's n-grams of one to three words, case-folded."""
    words = _WORD.findall(text.casefold())
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, _MAX_WORDS + 1)
        for start in range(len(words) - length + 1)
    )


def overlap(first: Counter[tuple[str, ...]], second: Counter[tuple[str, ...]]) -> float:
    """Returns the Dice coefficient of two multisets: 2 |A ∩ B| / (|A| + |B|), 0 if either is empty."""
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if first and second else 0.0


def match(generated: str, candidates: Sequence[str]) -> int | None:
    """Returns the index of the candidate with the largest n-gram overlap, the first of a tie; None if none overlaps."""
    answer = ngrams(generated)
    scores = [overlap(answer, ngrams(candidate)) for candidate in candidates]
    best = max(scores, default=0.0)
    return scores.index(best) if best > 0 else None


@dataclass(frozen=True)
class FreeText:
    """Generates an answer, and chooses the candidate with the largest n-gram overlap; the first if none overlaps."""

    description: str = "the paper's way, write a caption and take the most similar candidate"
    gives_distribution: bool = False
    output: Output | None = None

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """See `Decoder`."""
        tokenizer = questions.tokenizer
        # All users of a title share one list of answers.
        distinct = {id(answers): answers for answers in questions.answers}
        limits = {key: max(map(len, answers)) + 1 for key, answers in distinct.items()}
        generated = engine.generate(
            questions.prompts, max(limits.values(), default=1), tokenizer.end, images=questions.images
        )
        # A title's own limit: what is written must not depend on the other titles of a shard.
        own = [ids[: limits[id(answers)]] for ids, answers in zip(generated, questions.answers, strict=True)]
        candidates = {key: tokenizer.tokenizer.batch_decode(answers) for key, answers in distinct.items()}
        texts = zip(tokenizer.tokenizer.batch_decode(own), questions.answers, strict=True)
        matches = [match(text, candidates[id(answers)]) for text, answers in texts]
        return Choices([found or 0 for found in matches], [None] * len(matches), unmatched=matches.count(None))

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns one question, without tokens after the prompt."""
        return QuestionCost(1.0, 0.0, 0.0)
