"""What a model is asked for an artwork that is not there: a brief, for the artists of a title."""

import re
from collections.abc import Sequence

import numpy as np

from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer

WORDING = "brief-1"
"""Version of the wording; changes whenever a token of any question would."""


_SENTENCE = re.compile(r"[^.!?]*[.!?]+")
_MAX_SENTENCES = 3


def read(written: str) -> str:
    """Returns the brief in what a model wrote: one line, its first three whole sentences, or all if there is none."""
    line = escape(written)
    return "".join(_SENTENCE.findall(line)[:_MAX_SENTENCES]).strip() or line


def ask(pieces: PromptTokenizer, options: Options, genres: Sequence[str]) -> Ids:
    """Returns the question for a brief: the title with its artworks, and whom none of them suits.

    Args:
        options: the title with its candidates, as a prompt shows them.
        genres: that this group watches more than the title's other users.
    """
    asked = (
        f"\n\nNone of these suits a group of viewers who watch more {escape(' and '.join(genres))} than others. "
        f"Write a brief for a new {pieces.spec.asset_kind} of this title that they would like, unlike those above. In "
        "two sentences: who or what it shows and where, in what light and mood."
    )
    ids = [*pieces.head, *options.prefix, *pieces.encode([asked])[0], *pieces.turn]
    return np.array(ids, dtype=np.int32)
