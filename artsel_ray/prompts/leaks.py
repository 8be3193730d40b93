"""Finds rationales that give the answer away instead of explaining it.

A teacher that knows the answer may merely point at it: "option 3", "the correct answer", "the user chose this". A
student that learns such words learns to claim, not to reason, and the teacher's prediction from such a rationale agrees
with the truth for no good reason. The patterns are for English, the language of the teacher's instructions. They drop
some good rationales rather than keep a leak.
"""

import re

MARKUP = "has an option's or a chat's markup"
OPTION = "points at an option by its number or position"
ANSWER = "treats the answer as given"
CHOICE = "states what the user chose"
QUOTE = "quotes the caption"
KINDS = (MARKUP, OPTION, ANSWER, CHOICE, QUOTE)
"""The kinds of leaks, in the order of the search."""

# A complete caption of fewer words is no quote: there may be no other words for the artwork.
_MIN_QUOTED_WORDS = 4
_WORD = re.compile(r"\w+")

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
    """Returns the first of `KINDS` that applies to a rationale, or None.

    Args:
        rationale: one escaped line.
        caption: the caption of the artwork that it explains.
        quoted_words: number of consecutive words of the caption that make a quote. For a shorter caption, all words do.
    """
    for kind, pattern in _COMPILED.items():
        if pattern.search(rationale):
            return kind
    return QUOTE if _quotes(rationale, caption, quoted_words) else None


def words(text: str) -> list[str]:
    """Returns the words of a text, case-folded, without punctuation."""
    return _WORD.findall(text.casefold())


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    """Returns all runs of `length` consecutive words of a text."""
    found = words(text)
    return {tuple(found[start : start + length]) for start in range(len(found) - length + 1)}


def points_at_option(rationale: str) -> bool:
    """Returns whether a rationale refers to an option by its number or position."""
    return _COMPILED[OPTION].search(rationale) is not None


def _quotes(rationale: str, caption: str, quoted_words: int) -> bool:
    length = min(quoted_words, len(words(caption)))
    if length < min(_MIN_QUOTED_WORDS, quoted_words):
        return False
    return bool(runs(rationale, length) & runs(caption, length))
