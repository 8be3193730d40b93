"""Generated titles, users and viewing histories, of any size."""

import math
from collections.abc import Iterator

import numpy as np

from artsel_ray.simulate.histories import Histories, Titles, Viewings
from artsel_ray.simulate.themes import THEMES
from artsel_ray.simulate.world import genre_themes

GROUP_USERS = 10_000
# Scores of users for titles that are in memory at once.
_GROUP_SCORES = 4_000_000
_START_SECONDS = 1_672_531_200  # 2023-01-01
_YEAR_SECONDS = 365 * 86_400


def synthetic_histories(
    users: int, titles: int, themes: int, interactions_per_user: float, shared_words: float, seed: int
) -> Histories:
    """Generates titles, and the viewings of users who prefer the themes of their taste.

    Args:
        themes: number of themes in titles and tastes.
        interactions_per_user: mean number of viewings of a user.
        shared_words: chance that a title is named after an object that captions of its themes show.
        seed: source of all draws.
    """
    rng = np.random.default_rng([seed, 2])
    known = sorted({genre for theme in THEMES[:themes] for genre in theme.genres})
    genres = [rng.choice(known, size=int(rng.integers(1, 4)), replace=False).tolist() for _ in range(titles)]
    themes_xt = genre_themes(genres, themes)
    generated = Titles(
        title_ids=[f"t{number:06d}" for number in range(titles)],
        names=[_name(themes_t, shared_words, rng) for themes_t in themes_xt],
        years=rng.integers(1950, 2025, titles).tolist(),
        genres=genres,
    )
    return Histories(generated, themes_xt, _groups(themes_xt, users, interactions_per_user, seed))


def _name(themes_t: np.ndarray, shared_words: float, rng: np.random.Generator) -> str:
    theme = THEMES[int(rng.choice(len(themes_t), p=themes_t))]
    words = theme.objects if rng.random() < shared_words else ("the old road", "a long week", "the other side")
    word = str(rng.choice(words)).removeprefix("a ").removeprefix("the ").title()
    return f"The {word} {rng.integers(2, 1000)}"


def _groups(themes_xt: np.ndarray, users: int, interactions_per_user: float, seed: int) -> Iterator[Viewings]:
    count = len(themes_xt)
    popularity_x = -0.8 * np.log(np.random.default_rng([seed, 3]).permutation(count) + 5.0)
    size = max(1, min(GROUP_USERS, _GROUP_SCORES // count))
    for first in range(0, users, size):
        rng = np.random.default_rng([seed, 4, first])
        user_ids = [f"u{number:08d}" for number in range(first, min(first + size, users))]
        yield _viewings(user_ids, themes_xt, popularity_x, interactions_per_user, rng)


def _viewings(
    user_ids: list[str],
    themes_xt: np.ndarray,
    popularity_x: np.ndarray,
    interactions_per_user: float,
    rng: np.random.Generator,
) -> Viewings:
    users, (titles, themes) = len(user_ids), themes_xt.shape
    taste_ut = rng.dirichlet(np.full(themes, 0.3), users)
    scores_ux = popularity_x + 2.0 * themes * (taste_ut @ themes_xt.T) / 2.0 + rng.gumbel(size=(users, titles))
    lengths_u = np.rint(rng.lognormal(math.log(interactions_per_user) - 0.08, 0.4, users))
    lengths_u = lengths_u.clip(1, titles).astype(np.int64)
    # The largest Gumbel scores are a draw without replacement in proportion to the weights.
    longest = int(lengths_u.max())
    top = np.argpartition(-scores_ux, min(longest, titles - 1), axis=1)[:, :longest]
    ranked = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores_ux, top, axis=1), axis=1), axis=1)
    watched = ranked[np.arange(longest) < lengths_u[:, None]]
    # Titles and times are shuffled and sorted separately, so that a user's favorites are not watched first.
    owners = np.repeat(np.arange(users), lengths_u)
    seconds = _START_SECONDS + rng.integers(0, _YEAR_SECONDS, len(owners))
    shuffled = np.lexsort((rng.random(len(owners)), owners))
    by_time = np.lexsort((seconds, owners))
    return Viewings(
        user_ids=user_ids,
        taste_ut=taste_ut,
        users=owners,
        titles=watched[shuffled],
        seconds=seconds[by_time],
        watch_seconds=rng.gamma(2.0, 1800.0, len(owners)).round(),
    )
