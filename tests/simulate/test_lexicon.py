import re
from collections import Counter

import pytest

from artsel_ray.simulate.lexicon import LEXICONS, THEMES, Lexicon, Theme, vocabularies

SLOTS = ("subjects", "actions", "settings", "objects", "lights", "moods")
_COMMON = {"a", "an", "and", "at", "his", "in", "into", "of", "off", "on", "the", "to", "two", "with"}


def phrases(theme: Theme) -> list[str]:
    return [phrase for slot in SLOTS for phrase in getattr(theme, slot)]


@pytest.mark.parametrize(("lexicon", "least"), [("small", 4), ("rich", 22)])
def test_every_theme_has_phrases_and_genres(lexicon: Lexicon, least: int) -> None:
    assert len({theme.label for theme in LEXICONS[lexicon]}) == 12
    for theme in LEXICONS[lexicon]:
        assert min(len(getattr(theme, slot)) for slot in SLOTS) >= least
        assert all(0 < weight <= 1 for weight in theme.genres.values())


def test_phrases_and_genres_keep_the_order_of_the_file() -> None:
    # Their order decides what a seed draws.
    themes = LEXICONS["small"]
    assert [theme.label for theme in themes[:3]] == ["tenderness", "peril", "wonder"]
    assert list(themes[1].genres.items()) == [("Thriller", 1.0), ("Crime", 0.6), ("Horror", 0.4), ("Action", 0.3)]
    assert themes[1].subjects[:2] == ("a hunted man", "a woman with a gun")


def test_both_lexicons_have_the_same_themes() -> None:
    small, rich = ([(theme.label, list(theme.genres.items())) for theme in themes] for themes in LEXICONS.values())
    assert small == rich


def test_no_phrase_of_the_rich_lexicon_is_in_two_themes() -> None:
    assert max(Counter(phrase for theme in THEMES for phrase in phrases(theme)).values()) == 1


def test_no_word_marks_a_theme() -> None:
    for theme in THEMES:
        words = Counter(word for phrase in phrases(theme) for word in set(re.findall(r"[a-z'-]+", phrase.lower())))
        (word, count), *_ = Counter({word: n for word, n in words.items() if word not in _COMMON}).most_common(1)
        assert count <= 0.05 * len(phrases(theme)), (theme.label, word, count)


def test_new_titles_share_no_phrase_with_known_ones() -> None:
    known, new = vocabularies("rich", has_new=True, seed=1)
    for theme, one, other in zip(THEMES, known, new, strict=True):
        for slot in SLOTS:
            kept, reserved = set(getattr(one, slot)), set(getattr(other, slot))
            assert not kept & reserved
            assert kept | reserved == set(getattr(theme, slot))
            assert len(reserved) == round(0.3 * len(getattr(theme, slot)))


def test_without_new_titles_all_phrases_are_known() -> None:
    known, new = vocabularies("rich", has_new=False, seed=1)
    assert known == new
    assert [set(theme.subjects) for theme in known] == [set(theme.subjects) for theme in THEMES]


def test_few_phrases_are_common_and_many_are_rare() -> None:
    counts = sorted(Counter(vocabularies("rich", has_new=False, seed=1)[0][0].subjects).values(), reverse=True)
    assert counts[:4] == [60 // 3, 60 // 4, 60 // 5, 60 // 6]  # the most common first: 1 / (rank + 3)
    assert counts[-1] == 1
    assert sum(counts[:8]) > sum(counts[8:])


def test_seed_draws_which_phrases_are_common_and_which_are_new() -> None:
    one, same, other = (vocabularies("rich", has_new=True, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert set(one[1][0].subjects) != set(other[1][0].subjects)
    assert one[0][0].subjects[0] != other[0][0].subjects[0]


def test_small_lexicon_is_used_as_it_is() -> None:
    assert vocabularies("small", has_new=False, seed=1) == (LEXICONS["small"], LEXICONS["small"])
