"""Finds rationales that give the answer away (leaks), and those that must not be shown next to a choice (faults).

A teacher that knows the answer may merely point at it: "option 3", "the correct answer", "the user chose this". A
student that learns such words learns to claim, not to reason, and the teacher's prediction from such a rationale agrees
with the truth for no good reason. The patterns are for English, the language of the teacher's instructions.

A prompt holds one user's history and no id. So a model can reveal other users' data only where it memorized some of its
training, and then it names the titles that they watched. Names are matched as they are written, with their capitals. A
name of one word counts only inside a sentence, where a capital does not merely begin the sentence.

Both drop some good rationales rather than keep a leak, or show one that reveals another user's history.
"""

import re
from collections.abc import Iterable, Sequence

from artsel_ray.prompts.escaping import escape

MARKUP = "has an option's or a chat's markup"
OPTION = "points at an option by its number or position"
ANSWER = "treats the answer as given"
CHOICE = "states what the user chose"
QUOTE = "quotes the caption"
LEAKS = (MARKUP, OPTION, ANSWER, CHOICE, QUOTE)
"""The kinds of leaks, in the order of the search."""

OTHER_HISTORY = "reasons_of_other_histories"
OTHER_CANDIDATE = "reasons_of_other_candidates"
FAULTS = (OTHER_HISTORY, OTHER_CANDIDATE)
"""Why a rationale is not shown, in the order of the search; statistics of a run's summary have the same names."""

# A complete caption of fewer words is no quote: there may be no other words for the artwork.
_MIN_QUOTED_WORDS = 4
# Consecutive words that make a quote of another candidate's caption.
_QUOTED_WORDS = 5
_WORD = re.compile(r"\w+")
_WORD_AND_START = re.compile(r"(?P<start>^\W*|[.!?:…\n]\W*)?(?P<word>\w+)")

_CARDINAL = "one|two|three|four|five|six|seven|eight|nine|ten"
_ORDINAL = r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|final|\d+(?:st|nd|rd|th)"
_LISTED = "options?|choices?|candidates?|answers?"
_SHOWN = "artworks?|images?|posters?|pictures?|captions?|synops[ei]s|trailers?"
_NUMBERED = r"(?:number\s|no\.\s?|#\s?)?"
_USER = r"(?:user|viewer|person|customer|they|he|she)"
_PICKED = "chose|chosen|picked|selected|clicked"

_PATTERNS = {
    # ‹ too: `escape` replaces < with it.
    MARKUP: r"[<‹]\s*/?\s*option|[<‹]\|",
    OPTION: rf"\b(?:{_LISTED})\s{_NUMBERED}(?:\d+|(?:{_CARDINAL})|(?-i:[A-H]))\b"
    rf"|\b(?:{_SHOWN})\s{_NUMBERED}(?:\d+|(?-i:[A-H]))\b"
    rf"|\b(?:{_ORDINAL})\s(?:{_LISTED}|{_SHOWN}|one)\b"
    r"|#\s?\d",
    ANSWER: r"\b(?:correct|right|true|actual|given|provided|expected)\s"
    rf"(?:{_LISTED}|{_SHOWN}|prediction|label|one)\b"
    r"|\bground[-\s]truth\b|\banswer\s(?:is|was)\b|\b(?:i|we)\s(?:am|was|are|were)\s(?:told|given)\b"
    r"|\bas\s(?:told|given|stated|instructed)\b",
    CHOICE: rf"\b{_USER}\s(?:\w+\s){{0,3}}(?:{_PICKED})\b"
    rf"|\b(?:is|was|were|been|being|got|get)\s(?:\w+\s)?(?:{_PICKED})\b"
    rf"|\b(?:chosen|selected|picked|preferred|liked)\s(?:{_LISTED}|{_SHOWN})\b"
    r"|\b(?:user|viewer|person|customer)(?:'s|’s|s'|s’)\s(?:choice|selection|pick)\b"
    # "Would like the artwork with the storm" is a prediction; "liked the artwork", "likes this artwork" are knowledge.
    rf"|\b(?:liked|preferred|loved|enjoyed)\s(?:this|that|the)\s(?:following\s)?(?:{_LISTED}|{_SHOWN})\b"
    rf"|\b(?:likes|prefers|loves|enjoys)\s(?:this|that|the\sfollowing)\s(?:{_LISTED}|{_SHOWN}|one)\b"
    r"|\bliked\s(?:it|this|that)(?:\s\w+){0,2}\s(?:the\s)?(?:most|best)\b",
}
_COMPILED = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _PATTERNS.items()}


def find_leak(rationale: str, caption: str, quoted_words: int) -> str | None:
    """Returns the first of `LEAKS` that applies to a rationale, or None; both texts as prompts show them, escaped.

    Args:
        quoted_words: number of consecutive words of the caption that make a quote. For a shorter caption, all words do.
    """
    rationale, caption = escape(rationale), escape(caption)
    found = next((kind for kind, pattern in _COMPILED.items() if pattern.search(rationale)), None)
    length = min(quoted_words, len(words(caption)))
    is_long_enough = length >= min(_MIN_QUOTED_WORDS, quoted_words)
    return found or (QUOTE if is_long_enough and _runs(rationale, length) & _runs(caption, length) else None)


class Names:
    """The names of titles, to be found in rationales."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {tuple(_WORD.findall(escape(name))) for name in names} - {()}
        self._longest = max(map(len, self._names), default=0)

    def found(self, text: str) -> set[tuple[str, ...]]:
        """Returns the names that occur in a text."""
        tokens = [(match["word"], match["start"] is not None) for match in _WORD_AND_START.finditer(text)]
        runs = set()
        for first, (word, begins_sentence) in enumerate(tokens):
            if not word[0].islower():
                for end in range(first + 1, min(first + self._longest, len(tokens)) + 1):
                    if end > first + 1 or not begins_sentence:
                        runs.add(tuple(word for word, _ in tokens[first:end]))
        return runs & self._names


def find_fault(rationale: str, shown: str, captions: Sequence[str], chosen: int, names: Names) -> str | None:
    """Returns the first of `FAULTS` that applies to a rationale, or None.

    Args:
        shown: the user's history and the title, as the prompt shows them; the rationale may name what they name.
        captions: [M] all candidates' captions.
        chosen: index of the chosen candidate.
    """
    own_words = f" {' '.join(_WORD.findall(escape(shown)))} "
    if any(f" {' '.join(name)} " not in own_words for name in names.found(rationale)):
        return OTHER_HISTORY
    if _COMPILED[OPTION].search(rationale):
        return OTHER_CANDIDATE
    # Words that the chosen caption has too are no quote of another.
    foreign = _runs(rationale, _QUOTED_WORDS) - _runs(captions[chosen], _QUOTED_WORDS)
    others = [*captions[:chosen], *captions[chosen + 1 :]]
    return OTHER_CANDIDATE if any(foreign & _runs(caption, _QUOTED_WORDS) for caption in others) else None


def words(text: str) -> list[str]:
    """Returns the words of a text, case-folded, without punctuation."""
    return _WORD.findall(text.casefold())


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}
