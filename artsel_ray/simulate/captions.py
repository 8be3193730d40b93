"""Captions of simulated artworks, synopses and trailers: ordinary English from the small grammar of captions.toml."""

import random
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from artsel_ray.config import AssetKind
from artsel_ray.simulate.themes import THEMES, Theme, read_toml

# Measured with SmolLM2's tokenizer on captions of this grammar.
TOKENS_PER_WORD = 1.17
_LENGTH_SPREAD = 0.25
_THEME_SHARE = 0.6
# Words that a further sentence adds at least.
_SENTENCE_WORDS = 5
# Shorter captions are headlines.
_HEADLINE_TOKENS = 10
_BEFORE_SUBJECT = re.compile("^(At the centre, )?((an?|the|two|three) )?", re.IGNORECASE)


@dataclass(frozen=True)
class Grammar:
    """The sentence templates for one kind of asset."""

    first: tuple[str, ...]
    """Show the strongest theme at the start."""
    themed: tuple[str, ...]
    """Show a theme later in the caption."""
    genre: tuple[str, ...]
    """Name one of a theme's genres."""
    fillers: tuple[tuple[str, ...], ...]
    """Groups of sentences unrelated to any theme."""


def _grammar(entry: dict[str, Any]) -> Grammar:
    first, themed, genre = (tuple(entry[name]) for name in ("first", "themed", "genre"))
    return Grammar(first, themed, genre, fillers=tuple(map(tuple, entry["fillers"])))


GRAMMARS = {kind: _grammar(entry) for kind, entry in read_toml("captions.toml").items()}
"""The grammar of each kind of asset."""


def write_caption(
    mix: np.ndarray, tokens: int, shared_words: float, rng: random.Random, kind: AssetKind = "artwork"
) -> str:
    """Returns a caption for an artwork with a mix of themes.

    The first sentence shows the mix's strongest theme. Each further sentence shows a theme drawn from the mix, or a
    detail unrelated to any theme. A caption of fewer than ten tokens begins with its subject, as headlines do.

    Args:
        mix: [T] weights of the themes, which sum to 1.
        tokens: mean length; captions differ in length by about a quarter.
        shared_words: chance that a sentence about a theme names one of its genres, as histories do.
        rng: source of all choices.
        kind: kind of asset that the caption describes.
    """
    words_wanted = tokens / TOKENS_PER_WORD * rng.lognormvariate(0.0, _LENGTH_SPREAD)
    grammar, strongest = GRAMMARS[kind], THEMES[int(np.argmax(mix))]
    sentences = [_themed(strongest, grammar, grammar.first, 0.0, rng)]
    if rng.random() < shared_words:
        sentences.append(_themed(strongest, grammar, grammar.genre, 1.0, rng))
    weights = mix.tolist()
    words = sum(len(sentence.split()) for sentence in sentences)
    while words + _SENTENCE_WORDS < words_wanted:
        if rng.random() < _THEME_SHARE:
            (theme,) = rng.choices(THEMES[: len(weights)], weights)
            sentence = _themed(theme, grammar, grammar.themed, shared_words, rng)
        else:
            sentence = rng.choice(rng.choice(grammar.fillers))
        if sentence not in sentences:
            sentences.append(sentence)
        words += len(sentence.split())
    if tokens < _HEADLINE_TOKENS:
        headline = _BEFORE_SUBJECT.sub("", sentences[0])
        sentences[0] = headline[0].upper() + headline[1:]
    return " ".join(sentences)


def _themed(theme: Theme, grammar: Grammar, templates: tuple[str, ...], shared_words: float, rng: random.Random) -> str:
    """Returns a sentence from the templates about a theme, or, with chance `shared_words`, one about its genres."""
    if rng.random() < shared_words:
        (genre,) = rng.choices(list(theme.genres), list(theme.genres.values()))
        return rng.choice(grammar.genre).format(genre=genre.lower())
    words = {
        name: rng.choice(getattr(theme, f"{name}s"))
        for name in ("subject", "action", "setting", "object", "light", "mood")
    }
    capitals = {name.capitalize(): text[0].upper() + text[1:] for name, text in words.items()}
    return rng.choice(templates).format(**words, **capitals)
