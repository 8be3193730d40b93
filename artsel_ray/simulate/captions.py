"""Captions of simulated artworks, synopses and trailers: ordinary English out of a small grammar."""

import random
import re
from dataclasses import dataclass

import numpy as np

from artsel_ray.config import AssetKind
from artsel_ray.simulate.themes import COMPOSITIONS, CUTS, DETAILS, THEMES, TURNS, TYPOGRAPHIES, Theme

# Measured with SmolLM2's tokenizer on captions of this grammar.
TOKENS_PER_WORD = 1.17
_LENGTH_SPREAD = 0.25
_THEME_SHARE = 0.6
# Shorter captions are headlines.
_HEADLINE_TOKENS = 10
_BEFORE_SUBJECT = re.compile("^(At the centre, )?((an?|the|two|three) )?", re.IGNORECASE)


@dataclass(frozen=True)
class Grammar:
    """The sentences of a kind of asset."""

    first: tuple[str, ...]
    """What the strongest theme is told with at the start."""
    themed: tuple[str, ...]
    genre: tuple[str, ...]
    fillers: tuple[tuple[str, ...], ...]
    """Groups of sentences that have to do with no theme."""


_SUBJECTS = ("{Subject} {action}.", "At the centre, {subject} {action}.", "{Subject} {action}, seen against {setting}.")
_SENTENCES = (
    "Behind lies {setting}.",
    "The background shows {setting}.",
    "It takes place in {setting}.",
    "{Object} lies in the foreground.",
    "On one side {object} can be seen.",
    "A detail that catches the eye is {object}.",
    "The scene is lit by {light}.",
    "{Light} falls across the picture.",
    "Most of the colour comes from {light}.",
    "The whole feels {mood}.",
    "The mood is {mood}.",
    "One would call it {mood}.",
    "Further back, {subject} {action}.",
    "To the right, {subject} {action}.",
)
_GENRE_SENTENCES = (
    "It has the air of {genre}.",
    "Everything about it says {genre}.",
    "The style is that of {genre}.",
)

GRAMMARS: dict[AssetKind, Grammar] = {
    "artwork": Grammar(_SUBJECTS[:2], _SUBJECTS + _SENTENCES, _GENRE_SENTENCES, (COMPOSITIONS, TYPOGRAPHIES, DETAILS)),
    "synopsis": Grammar(
        ("{Subject} {action}.", "This is the story of {subject} in {setting}."),
        (
            "It all begins in {setting}.",
            "{Object} changes everything.",
            "Years later, {subject} {action}.",
            "Nobody expects {object} to matter.",
            "In {setting}, {subject} {action}.",
            "What follows is {mood}.",
        ),
        ("It is a tale of {genre}.", "The plot is {genre} through and through."),
        (TURNS,),
    ),
    "trailer": Grammar(
        ("{Subject} {action}.", "We open on {subject} in {setting}."),
        (
            "Cut to {setting}.",
            "{Object} fills the screen.",
            "The picture fades to {light}.",
            "For a second we see {object}.",
            "A voice says nothing while {subject} {action}.",
            "The music turns {mood}.",
        ),
        ("The music is that of {genre}.", "It is cut like {genre}."),
        (CUTS,),
    ),
}


def write_caption(
    mix: np.ndarray, tokens: int, shared_words: float, rng: random.Random, kind: AssetKind = "artwork"
) -> str:
    """Writes a caption of about so many tokens for an artwork.

    The first sentence shows the mix's strongest theme; the others show themes drawn from the mix, or details
    that have to do with none. A caption of fewer than ten tokens begins with its subject, as headlines do.

    Args:
        mix: [T] weights of the themes, which sum to 1.
        tokens: mean length; captions differ in length by about a quarter.
        shared_words: chance that a sentence about a theme names one of its genres, as histories do.
        rng: source of all choices.
        kind: of the asset that the caption stands for: a picture, a synopsis, a trailer.
    """
    words_wanted = tokens / TOKENS_PER_WORD * rng.lognormvariate(0.0, _LENGTH_SPREAD)
    grammar, strongest = GRAMMARS[kind], THEMES[int(np.argmax(mix))]
    sentences = [_themed(strongest, grammar, grammar.first, 0.0, rng)]
    if rng.random() < shared_words:
        sentences.append(_themed(strongest, grammar, grammar.genre, 1.0, rng))
    weights = mix.tolist()
    words = sum(len(sentence.split()) for sentence in sentences)
    while words + 5 < words_wanted:
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
    if rng.random() < shared_words:
        (genre,) = rng.choices(list(theme.genres), list(theme.genres.values()))
        return rng.choice(grammar.genre).format(genre=genre.lower())
    words = {
        name: rng.choice(getattr(theme, f"{name}s"))
        for name in ("subject", "action", "setting", "object", "light", "mood")
    }
    capitals = {name.capitalize(): text[0].upper() + text[1:] for name, text in words.items()}
    return rng.choice(templates).format(**words, **capitals)
