"""What simulated artworks show: captions in ordinary English from a small grammar, and images."""

import colorsys
import io
import random
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from artsel_ray.config import AssetKind
from artsel_ray.simulate.lexicon import THEMES, Theme

TOKENS_PER_WORD = 1.17  # measured with SmolLM2's tokenizer on captions of this grammar
_LENGTH_SPREAD, _THEME_SHARE = 0.25, 0.6
_SENTENCE_WORDS = 5  # that a further sentence adds at least
_HEADLINE_TOKENS = 10  # shorter captions are headlines
_BEFORE_SUBJECT = re.compile("^(At the center, )?((an?|the|two|three) )?", re.IGNORECASE)
_IMAGE_SIDE = 64


@dataclass(frozen=True)
class Grammar:
    """The sentence templates for one kind of asset; captions.toml describes them."""

    first: tuple[str, ...]
    themed: tuple[str, ...]
    genre: tuple[str, ...]
    fillers: tuple[tuple[str, ...], ...]


GRAMMARS = TypeAdapter(dict[AssetKind, Grammar]).validate_python(
    tomllib.loads(files(__package__).joinpath("captions.toml").read_text())
)
_COLORS = np.array([colorsys.hsv_to_rgb(index / len(THEMES), 0.8, 0.9) for index in range(len(THEMES))])


@dataclass(frozen=True)
class CaptionStyle:
    """How the captions of one kind of asset are written."""

    tokens: int
    """Mean length; captions differ in length by about a quarter. Below 10, captions are headlines."""
    shared_words: float
    """Chance that a sentence about a theme names one of its genres, as histories do."""
    kind: AssetKind = "artwork"
    themes: tuple[Theme, ...] = THEMES
    """The phrases that captions draw from."""


def write_caption(mix: np.ndarray, style: CaptionStyle, rng: random.Random) -> str:
    """Returns a caption for an artwork with a mix of themes, [T] weights that sum to 1; the strongest comes first."""
    words_wanted = style.tokens / TOKENS_PER_WORD * rng.lognormvariate(0.0, _LENGTH_SPREAD)
    grammar, strongest = GRAMMARS[style.kind], style.themes[int(np.argmax(mix))]
    sentences = [_themed(strongest, grammar, grammar.first, 0.0, rng)]
    if rng.random() < style.shared_words:
        sentences.append(_themed(strongest, grammar, grammar.genre, 1.0, rng))
    words = sum(len(sentence.split()) for sentence in sentences)
    while words + _SENTENCE_WORDS < words_wanted:
        if rng.random() < _THEME_SHARE:
            (theme,) = rng.choices(style.themes[: len(mix)], mix.tolist())
            sentence = _themed(theme, grammar, grammar.themed, style.shared_words, rng)
        else:
            sentence = rng.choice(rng.choice(grammar.fillers))
        if sentence not in sentences:
            sentences.append(sentence)
        words += len(sentence.split())
    if style.tokens < _HEADLINE_TOKENS:
        headline = _BEFORE_SUBJECT.sub("", sentences[0])
        sentences[0] = headline[0].upper() + headline[1:]
    return " ".join(sentences)


def _themed(theme: Theme, grammar: Grammar, templates: tuple[str, ...], shared_words: float, rng: random.Random) -> str:
    if rng.random() < shared_words:
        (genre,) = rng.choices(list(theme.genres), list(theme.genres.values()))
        return rng.choice(grammar.genre).format(genre=genre.lower())
    names = ("subject", "action", "setting", "object", "light", "mood")
    words = {name: rng.choice(getattr(theme, f"{name}s")) for name in names}
    capitals = {name.capitalize(): text[0].upper() + text[1:] for name, text in words.items()}
    return rng.choice(templates).format(**words, **capitals)


def draw(mix: np.ndarray) -> bytes:
    """Returns a PNG of vertical bands in the colors of the themes, each as wide as its theme's weight in the mix."""
    ends = np.rint(np.cumsum(mix) * _IMAGE_SIDE).astype(int)
    row = np.repeat(_COLORS[: len(mix)], np.diff(ends, prepend=0), axis=0)
    pixels = np.broadcast_to((row * 255).astype(np.uint8), (_IMAGE_SIDE, _IMAGE_SIDE, 3))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
