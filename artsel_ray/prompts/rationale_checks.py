"""Finds reasons that must not be shown beside a choice: of somebody else's history, or of an artwork not chosen.

A prompt holds one user's history and no id. So a model can only speak of others' data where it has kept something of
its training, and then it names what they watched. Names are looked for as they are written, capitals and all; a name
of one word only inside a sentence, where a capital is not the sentence's. That rather drops a good reason than keeps
one that tells of others.
"""

import re
from collections.abc import Iterable, Sequence

from artsel_ray.prompts import leaks
from artsel_ray.prompts.escaping import escape

OTHER_HISTORY = "reasons_of_other_histories"
OTHER_CANDIDATE = "reasons_of_other_candidates"
KINDS = (OTHER_HISTORY, OTHER_CANDIDATE)
"""Why a reason is not shown, in the order in which it is looked for, as they are counted in a run's summary."""

# Words in a row out of a caption that is not the chosen one's.
_QUOTED_WORDS = 5
_WORD = re.compile(r"(?P<start>^\W*|[.!?:…\n]\W*)?(?P<word>\w+)")

Words = tuple[str, ...]


class Names:
    """Titles by the words of their names."""

    def __init__(self, names: Iterable[str]) -> None:
        """Takes the names as the tables have them."""
        self._names = {tuple(_words(name)) for name in names} - {()}
        self._longest = max(map(len, self._names), default=0)

    def found(self, text: str) -> set[Words]:
        """Returns the names that stand in a text."""
        words = [(match["word"], match["start"] is not None) for match in _WORD.finditer(text)]
        runs = set()
        for first, (word, starts) in enumerate(words):
            if not word[0].islower():
                for last in range(first + 1, min(first + self._longest, len(words)) + 1):
                    if last > first + 1 or not starts:
                        runs.add(tuple(word for word, _ in words[first:last]))
        return runs & self._names


def find_fault(reason: str, own: str, captions: Sequence[str], chosen: int, names: Names) -> str | None:
    """Returns the first of `KINDS` that a reason is, or None.

    Args:
        reason: what the model wrote.
        own: the user's history and the title, as the prompt shows them: what the reason may name.
        captions: of all candidates.
        chosen: the place of the chosen one.
        names: of titles.
    """
    shown = f" {' '.join(_words(own))} "
    if any(f" {' '.join(name)} " not in shown for name in names.found(reason)):
        return OTHER_HISTORY
    if leaks.points_at_option(reason):
        return OTHER_CANDIDATE
    said = leaks.runs(reason, _QUOTED_WORDS) - leaks.runs(captions[chosen], _QUOTED_WORDS)
    if any(said & leaks.runs(caption, _QUOTED_WORDS) for place, caption in enumerate(captions) if place != chosen):
        return OTHER_CANDIDATE
    return None


def _words(text: str) -> list[str]:
    return [match["word"] for match in _WORD.finditer(escape(text))]
