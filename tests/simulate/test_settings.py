from typing import Any

import pytest

from artsel_ray.errors import InputError
from artsel_ray.simulate.lexicon import THEMES
from artsel_ray.simulate.settings import SimulateConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"themes": 13}, "--themes is 13; it must be at most 12"),
        ({"themes": 1}, "--themes is 1; it must be at least 2"),
        ({"min_candidates": 9, "max_candidates": 4}, "--max-candidates is 4; it must be at least --min-candidates 9"),
        ({"source": "movielens", "users": 944}, "--users is 944; MovieLens 100K has 943"),
        ({"source": "movielens", "titles": 1683}, "--titles is 1683; MovieLens 100K has 1,682"),
        ({"lexicon": "small"}, "--new-words is 0.3; with --lexicon small it must be 0: add --new-words 0"),
        ({"shared_words": 1.5}, "--shared-words is 1.5; it must be at most 1"),
        ({"exploration": 0.0}, "--exploration is 0.0; it must be at least 0.001"),
        ({"engagement_rate": 1.0}, "--engagement-rate is 1.0; it must be at most 0.999"),
        ({"caption_tokens": 7}, "--caption-tokens is 7; it must be at least 8"),
    ],
)
def test_wrong_flags_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SimulateConfig(output="w", **change)


def test_every_theme_can_be_used() -> None:
    assert SimulateConfig(output="w", themes=len(THEMES)).themes == 12
