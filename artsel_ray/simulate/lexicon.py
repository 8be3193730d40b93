"""What captions can say: themes with their phrases, how frequent each phrase is, and which ones only new titles use."""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, get_args

from pydantic import TypeAdapter

Lexicon = Literal["rich", "small"]
_SLOTS = ("subjects", "actions", "settings", "objects", "lights", "moods")
_NEW_PHRASES = 0.3
_RANK_OFFSET, _REPEATS = 3, 60


@dataclass(frozen=True)
class Theme:
    """What an artwork can show and a user can like."""

    label: str
    genres: dict[str, float]
    """Weights of the genres that go with the theme."""
    subjects: tuple[str, ...]
    """Phrases; one that occurs several times is drawn so much more often. So are those of the other fields."""
    actions: tuple[str, ...]
    settings: tuple[str, ...]
    objects: tuple[str, ...]
    lights: tuple[str, ...]
    moods: tuple[str, ...]


def _read(lexicon: Lexicon) -> tuple[Theme, ...]:
    text = files(__package__).joinpath(f"{lexicon}_lexicon.toml").read_text()
    return TypeAdapter(tuple[Theme, ...]).validate_python(tomllib.loads(text)["theme"])


LEXICONS: dict[Lexicon, tuple[Theme, ...]] = {lexicon: _read(lexicon) for lexicon in get_args(Lexicon)}
THEMES = LEXICONS["rich"]
"""Themes with each phrase once; both lexicons have the same labels and genres."""


def vocabularies(lexicon: Lexicon, has_new: bool, seed: int) -> tuple[tuple[Theme, ...], tuple[Theme, ...]]:
    """Returns the themes with the phrases of known titles, and those with the phrases of new titles.

    Frequencies follow Zipf's law: the phrase of rank r, drawn from the seed, occurs in proportion to 1 / (r + 3). If
    `has_new`, 30 % of each slot's phrases are for new titles alone, and new titles use no others. The small lexicon has
    too few phrases for either: all of them are used by all titles, equally often.
    """
    if lexicon == "small":
        return LEXICONS["small"], LEXICONS["small"]
    known, new = zip(*(_divided(theme, has_new, seed) for theme in LEXICONS["rich"]), strict=True)
    return known, new if has_new else known


def _divided(theme: Theme, has_new: bool, seed: int) -> tuple[Theme, Theme]:
    known, new = {}, {}
    for slot in _SLOTS:
        phrases = list(getattr(theme, slot))
        random.Random(f"{seed}:{theme.label}:{slot}").shuffle(phrases)
        reserved = round(_NEW_PHRASES * len(phrases)) if has_new else 0
        new[slot], known[slot] = _by_rank(phrases[:reserved]), _by_rank(phrases[reserved:])
    return Theme(theme.label, theme.genres, **known), Theme(theme.label, theme.genres, **new)


def _by_rank(phrases: Sequence[str]) -> tuple[str, ...]:
    return tuple(phrase for rank, phrase in enumerate(phrases) for _ in range(_REPEATS // (rank + _RANK_OFFSET)))
