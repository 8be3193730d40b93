"""Finds rationales that must not be shown next to a choice: of another user's history, or of an artwork not chosen.

A prompt holds one user's history and no id. So a model can reveal other users' data only where it memorized some of its
training, and then it names the titles that they watched. Names are matched as they are written, with their capitals. A
name of one word counts only inside a sentence, where a capital does not merely begin the sentence. This drops some good
rationales rather than show one that reveals another user's history.
"""

import re
from collections.abc import Iterable, Sequence

from artsel_ray.prompts import leaks
from artsel_ray.prompts.escaping import escape

OTHER_HISTORY = "reasons_of_other_histories"
OTHER_CANDIDATE = "reasons_of_other_candidates"
KINDS = (OTHER_HISTORY, OTHER_CANDIDATE)
"""Why a rationale is not shown, in the order of the search; statistics of a run's summary have the same names."""

# Consecutive words that make a quote of another candidate's caption.
_QUOTED_WORDS = 5
_WORD = re.compile(r"(?P<start>^\W*|[.!?:…\n]\W*)?(?P<word>\w+)")

Words = tuple[str, ...]


class Names:
    """The names of titles, to be found in rationales."""

    def __init__(self, names: Iterable[str]) -> None:
        """Splits the names into words.

        Args:
            names: as in the titles table.
        """
        self._names = {tuple(_words(name)) for name in names} - {()}
        self._longest = max(map(len, self._names), default=0)

    def found(self, text: str) -> set[Words]:
        """Returns the names that occur in a text."""
        words = [(match["word"], match["start"] is not None) for match in _WORD.finditer(text)]
        runs = set()
        for first, (word, begins_sentence) in enumerate(words):
            if not word[0].islower():
                for end in range(first + 1, min(first + self._longest, len(words)) + 1):
                    if end > first + 1 or not begins_sentence:
                        runs.add(tuple(word for word, _ in words[first:end]))
        return runs & self._names


def find_fault(rationale: str, shown: str, captions: Sequence[str], chosen: int, names: Names) -> str | None:
    """Returns the first of `KINDS` that applies to a rationale, or None.

    Args:
        rationale: the text that the model generated.
        shown: the user's history and the title, as the prompt shows them; the rationale may name what they name.
        captions: [M] all candidates' captions.
        chosen: index of the chosen candidate.
        names: the names of all titles.
    """
    own_words = f" {' '.join(_words(shown))} "
    if any(f" {' '.join(name)} " not in own_words for name in names.found(rationale)):
        return OTHER_HISTORY
    if leaks.points_at_option(rationale):
        return OTHER_CANDIDATE
    # Words that the chosen caption has too are no quote of another.
    foreign = leaks.runs(rationale, _QUOTED_WORDS) - leaks.runs(captions[chosen], _QUOTED_WORDS)
    others = (caption for index, caption in enumerate(captions) if index != chosen)
    if any(foreign & leaks.runs(caption, _QUOTED_WORDS) for caption in others):
        return OTHER_CANDIDATE
    return None


def _words(text: str) -> list[str]:
    return [match["word"] for match in _WORD.finditer(escape(text))]
