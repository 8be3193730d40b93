"""Finds reasons that give the answer away instead of explaining it.

A teacher that was told the answer may merely point at it: "option 3", "the correct answer", "the user chose this".
A student that learns such words learns to claim, not to reason; and the teacher's prediction from such a reason
agrees with the truth for nothing. The patterns are of English, in which the teacher is asked. They rather drop a good
reason than keep a leak.
"""

import re

MARKUP = "has an option's or a chat's markup"
OPTION = "points at an option by its number or place"
ANSWER = "speaks of the answer as given"
CHOICE = "tells what the user chose"
QUOTE = "quotes the caption"
KINDS = (MARKUP, OPTION, ANSWER, CHOICE, QUOTE)
"""In the order in which they are looked for."""

# A whole caption of fewer words may be all that there is to say of the artwork.
_SHORTEST_QUOTE = 4
_WORD = re.compile(r"\w+")

_CARDINAL = "one|two|three|four|five|six|seven|eight|nine|ten"
_ORDINAL = r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|final|\d+(?:st|nd|rd|th)"
_LISTED = "options?|choices?|candidates?|answers?"
_SHOWN = "artworks?|images?|posters?|pictures?|captions?|synops[ei]s|trailers?"
_NUMBERED = r"(?:number\s|no\.\s?|#\s?)?"
_USER = r"(?:user|viewer|person|customer|they|he|she)"
_PICKED = "chose|chosen|picked|selected|clicked"

_PATTERNS = {
    # The signs that `escape` puts in the place of < and > count too.
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
    # "Would like the artwork with the storm" predicts; "liked the artwork" and "likes this artwork" know.
    rf"|\b(?:liked|preferred|loved|enjoyed)\s(?:this|that|the)\s(?:following\s)?(?:{_LISTED}|{_SHOWN})\b"
    rf"|\b(?:likes|prefers|loves|enjoys)\s(?:this|that|the\sfollowing)\s(?:{_LISTED}|{_SHOWN}|one)\b"
    r"|\bliked\s(?:it|this|that)(?:\s\w+){0,2}\s(?:the\s)?(?:most|best)\b",
}
_COMPILED = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _PATTERNS.items()}


def find_leak(reason: str, caption: str, quoted_words: int) -> str | None:
    """Returns the first of `KINDS` that a reason is, or None.

    Args:
        reason: one line, as `prompts.teacher.reason_of` returns it.
        caption: of the artwork that it explains.
        quoted_words: a run of so many words out of the caption is a quote; of a shorter caption, all its words are.
    """
    for kind, pattern in _COMPILED.items():
        if pattern.search(reason):
            return kind
    return QUOTE if _quotes(reason, caption, quoted_words) else None


def words(text: str) -> list[str]:
    """Returns the words of a text, case folded, without punctuation."""
    return _WORD.findall(text.casefold())


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    """Returns all runs of so many words of a text."""
    said = words(text)
    return {tuple(said[start : start + length]) for start in range(len(said) - length + 1)}


def points_at_option(reason: str) -> bool:
    """Returns whether a reason speaks of an option by its number or place."""
    return _COMPILED[OPTION].search(reason) is not None


def _quotes(reason: str, caption: str, quoted_words: int) -> bool:
    length = min(quoted_words, len(words(caption)))
    if length < min(_SHORTEST_QUOTE, quoted_words):
        return False
    return bool(runs(reason, length) & runs(caption, length))
