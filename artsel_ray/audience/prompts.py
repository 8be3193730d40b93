"""The question for a brief of a missing artwork, and how the answer is cleaned."""

import re
from collections.abc import Sequence

import numpy as np

from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer

WORDING = "brief-1"
"""Version of the wording; changes whenever a token of any question would."""

_SENTENCE = re.compile(r"[^.!?]*[.!?]+")
_MAX_SENTENCES = 3


def question(tokenizer: PromptTokenizer, options: Options, genres: Sequence[str]) -> Ids:
    """Returns the ids of the question for a brief: the title with its artworks, and the users whom none suits.

    Args:
        options: the title with its candidates, as a prompt shows them.
        genres: what these users watch more than the title's other users.
    """
    text = (
        f"\n\nNone of these suits a group of viewers who watch more {escape(' and '.join(genres))} than others. "
        f"Write a brief for a new {tokenizer.spec.asset_kind} of this title that they would like, unlike those above. "
        "In two sentences: who or what it shows and where, in what light and mood."
    )
    ids = [*tokenizer.head, *options.prefix, *tokenizer.encode([text])[0], *tokenizer.turn]
    return np.array(ids, dtype=np.int32)


def brief_of(generated: str) -> str:
    """Returns the brief in a model's text: one line, its first three complete sentences, or all if there is none."""
    line = escape(generated)
    return "".join(_SENTENCE.findall(line)[:_MAX_SENTENCES]).strip() or line
