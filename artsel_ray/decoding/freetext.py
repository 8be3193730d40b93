"""The paper's decoding: write an answer freely, then take the candidate that resembles it most."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
_LONGEST = 3


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """Returns the multiset of a text's runs of one to three words, case folded."""
    words = _WORD.findall(text.casefold())
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, _LONGEST + 1)
        for start in range(len(words) - length + 1)
    )


def overlap(first: Counter[tuple[str, ...]], second: Counter[tuple[str, ...]]) -> float:
    """Returns the Dice coefficient of two multisets: 2 |A ∩ B| / (|A| + |B|), 0 if either is empty."""
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if first and second else 0.0


def match(written: str, candidates: Sequence[str]) -> int | None:
    """Returns the index of the candidate with the largest n-gram overlap, the first one of a tie.

    None if nothing written is found in any candidate, an empty answer included.
    """
    answer = ngrams(written)
    scores = [overlap(answer, ngrams(candidate)) for candidate in candidates]
    best = max(scores, default=0.0)
    return scores.index(best) if best > 0 else None
