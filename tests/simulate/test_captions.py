import random
import re
from typing import get_args

import numpy as np
import pytest

from artsel_ray.config import AssetKind
from artsel_ray.simulate.captions import TOKENS_PER_WORD, write_caption
from artsel_ray.simulate.themes import THEMES

STEMS = ["tender", "peril", "wonder", "mirth", "grief", "griev", "kinship", "enigma", "voyag", "solit", "spectac",
         "melod", "strife"]  # fmt: skip


def captions(tokens: int, shared: float, count: int = 600, kind: AssetKind = "artwork") -> list[str]:
    rng = random.Random(0)
    mixes = np.random.default_rng(0).dirichlet(np.full(12, 0.3), count)
    return [write_caption(mix, tokens, shared, rng, kind) for mix in mixes]


def test_captions_never_name_a_theme() -> None:
    assert all(any(theme.label.startswith(stem[:5]) for stem in STEMS) for theme in THEMES)
    for shared in (0.0, 1.0):
        for caption in [text for kind in get_args(AssetKind) for text in captions(200, shared, 200, kind)]:
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
    caption = write_caption(mix, 12, 0.0, random.Random(1), kind).casefold()
    assert any(subject in caption for subject in THEMES[theme].subjects)


def test_very_short_captions_are_headlines() -> None:
    articles = re.compile("^(an?|the|two|three) ")
    subjects = {articles.sub("", subject.casefold()) for theme in THEMES for subject in theme.subjects}
    for caption in captions(8, 0.3):
        assert any(caption.casefold().startswith(subject) for subject in subjects), caption
        assert caption[0].isupper()


def test_shared_words_name_genres() -> None:
    genres = "|".join({genre.lower() for theme in THEMES for genre in theme.genres})
    shares = [np.mean([bool(re.search(genres, text)) for text in captions(60, shared)]) for shared in (0.0, 1.0)]
    assert shares[0] < 0.1
    assert shares[1] > 0.9
