import io
import random
import re
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artsel_ray.config import AssetKind
from artsel_ray.simulate.artworks import TOKENS_PER_WORD, CaptionStyle, draw, write_caption
from artsel_ray.simulate.lexicon import LEXICONS, THEMES, Lexicon

STEMS = ["tender", "peril", "wonder", "mirth", "grief", "griev", "kinship", "enigma", "voyag", "solit", "spectac",
         "melod", "strife"]  # fmt: skip


def captions(
    tokens: int, shared: float, count: int = 600, kind: AssetKind = "artwork", lexicon: Lexicon = "rich"
) -> list[str]:
    rng = random.Random(0)
    mixes = np.random.default_rng(0).dirichlet(np.full(12, 0.3), count)
    return [write_caption(mix, CaptionStyle(tokens, shared, kind, LEXICONS[lexicon]), rng) for mix in mixes]


def test_captions_never_name_a_theme() -> None:
    assert all(any(theme.label.startswith(stem[:5]) for stem in STEMS) for theme in THEMES)
    for shared in (0.0, 1.0):
        for caption in [
            text
            for kind in get_args(AssetKind)
            for lexicon in LEXICONS
            for text in captions(200, shared, 200, kind, lexicon)
        ]:
            assert not re.search("|".join(STEMS), caption, re.IGNORECASE), caption


# The grammars of synopses and trailers are smaller: beyond a hundred tokens their captions are shorter.
@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        (tokens, kind)
        for kind in get_args(AssetKind)
        for tokens in (12, 24, 60, 200, 400)
        if kind == "artwork" or tokens < 99
    ],
)
def test_captions_have_about_the_requested_length(tokens: int, kind: AssetKind) -> None:
    words = np.array([len(caption.split()) for caption in captions(tokens, 0.3, kind=kind)])
    assert words.mean() * TOKENS_PER_WORD == pytest.approx(tokens, rel=0.35 if tokens < 30 else 0.12)
    if tokens >= 60:
        assert words.std() > 0.15 * words.mean()


def test_captions_differ_and_never_repeat_a_sentence() -> None:
    written = captions(200, 0.3)
    assert len(set(written)) == len(written)
    for caption in written:
        sentences = caption.split(". ")
        assert len(set(sentences)) == len(sentences)
        assert caption[0].isupper()
        assert caption.endswith(".")


@pytest.mark.parametrize("kind", get_args(AssetKind))
@pytest.mark.parametrize("theme", range(len(THEMES)))
def test_shortest_caption_shows_the_strongest_theme(theme: int, kind: AssetKind) -> None:
    mix = np.full(12, 0.01)
    mix[theme] = 0.89
    caption = write_caption(mix, CaptionStyle(12, 0.0, kind), random.Random(1)).casefold()
    assert any(subject in caption for subject in THEMES[theme].subjects)


def test_very_short_captions_are_headlines() -> None:
    articles = re.compile("^(an?|the|two|three) ")
    subjects = {articles.sub("", subject.casefold()) for theme in THEMES for subject in theme.subjects}
    for caption in captions(8, 0.3):
        assert any(caption.casefold().startswith(subject) for subject in subjects), caption
        assert caption[0].isupper()


def test_shared_words_name_genres() -> None:
    genres = "|".join({genre.lower() for theme in THEMES for genre in theme.genres})
    unnamed, named = (
        np.mean([bool(re.search(rf"\b({genres})\b", text)) for text in captions(60, shared)]) for shared in (0.0, 1.0)
    )
    assert unnamed == 0
    assert named > 0.9


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=len(THEMES)))
def test_band_is_as_wide_as_the_weight_of_its_theme(weights: list[float]) -> None:
    mix = np.array(weights) / sum(weights)
    pixels = np.asarray(Image.open(io.BytesIO(draw(mix))))
    assert (pixels == pixels[:1]).all()
    shown, widths = np.unique(pixels[0], axis=0, return_counts=True)
    assert len(shown) <= len(mix)
    assert abs(widths.max() - mix.max() * pixels.shape[1]) <= 1
