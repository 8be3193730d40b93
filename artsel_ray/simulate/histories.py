"""Titles and the histories of who watched them: generated, of any size, or real, from MovieLens 100K.

MovieLens is fetched at run time and never stored. Array suffixes: u users, x titles, t themes.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from artsel_ray import packages
from artsel_ray.simulate.lexicon import THEMES, Theme

_PACKAGE = "recbole==1.2.1"
_PACKAGE_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
GROUP_USERS = 10_000
_GROUP_SCORES = 4_000_000  # of users for titles that are in memory at once
_START_SECONDS, _YEAR_SECONDS = 1_672_531_200, 365 * 86_400  # 2023

LICENSE = (
    "MovieLens 100K (GroupLens, University of Minnesota): for research only, not to be redistributed, "
    "not for commercial use without permission; see https://grouplens.org/datasets/movielens/100k/"
)
_TASTE_SHARPNESS = 3.0
_RELEASE_SHARE = 0.1  # of the log, its last part, in which new titles are shown


@dataclass(frozen=True)
class Viewings:
    """I viewings of a group of U users: users ascending, each user's viewings by time."""

    user_ids: list[str]
    taste_ut: np.ndarray
    """Weights of the themes in each user's taste; rows sum to 1."""
    users: np.ndarray
    """[I] index into `user_ids`."""
    titles: np.ndarray
    """[I] index into the titles."""
    seconds: np.ndarray
    """[I] time of the viewing, in seconds since 1970."""
    watch_seconds: np.ndarray | None
    """[I]; None if unknown."""

    def __len__(self) -> int:
        return len(self.users)

    def part(self, start: int, stop: int) -> "Viewings":
        """Returns the viewings from `start` to `stop`, of the same users."""
        users, titles, seconds = (each[start:stop] for each in (self.users, self.titles, self.seconds))
        watch_seconds = None if self.watch_seconds is None else self.watch_seconds[start:stop]
        return Viewings(self.user_ids, self.taste_ut, users, titles, seconds, watch_seconds)

    def released_late(self, is_new_x: np.ndarray) -> "Viewings":
        """Returns the viewings with those of new titles moved into the last tenth of the time, in their order."""
        end = self.seconds.max()
        moved = end - ((end - self.seconds) * _RELEASE_SHARE).astype(np.int64)
        seconds = np.where(is_new_x[self.titles], moved, self.seconds)
        order = np.lexsort((seconds, self.users))
        watch_seconds = None if self.watch_seconds is None else self.watch_seconds[order]
        return replace(
            self, users=self.users[order], titles=self.titles[order], seconds=seconds[order],
            watch_seconds=watch_seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class Histories:
    """Titles, and the viewings of one group of users after another, so that memory does not grow with the users."""

    titles: pa.Table
    """title_id, name, year, genres."""
    themes_xt: np.ndarray
    """Weights of each title's themes; rows sum to 1."""
    groups: Iterator[Viewings]


def genre_themes(genres: list[list[str]], themes: int) -> np.ndarray:
    """Returns the weights of the themes for lists of genres, [X, T]; rows sum to 1, uniform without known genres."""
    weights = np.full((len(genres), themes), 0.05)
    for row, names in enumerate(genres):
        for column, theme in enumerate(THEMES[:themes]):
            weights[row, column] += sum(theme.genres.get(name, 0.0) for name in names)
    return weights / weights.sum(axis=1, keepdims=True)


def synthetic_histories(
    users: int, titles: int, themes: tuple[Theme, ...], interactions_per_user: float, shared_words: float, seed: int
) -> Histories:
    """Generates titles, and the viewings of users who prefer the themes of their taste.

    Args:
        shared_words: chance that a title is named after an object that captions of its themes show.
    """
    rng = np.random.default_rng([seed, 2])
    known = sorted({genre for theme in themes for genre in theme.genres})
    genres = [rng.choice(known, size=int(rng.integers(1, 4)), replace=False).tolist() for _ in range(titles)]
    themes_xt = genre_themes(genres, len(themes))
    names = [_name(themes_t, themes, shared_words, rng) for themes_t in themes_xt]
    years = rng.integers(1950, 2025, titles).tolist()
    title_ids = [f"t{number:06d}" for number in range(titles)]
    generated = pa.table({"title_id": title_ids, "name": names, "year": years, "genres": genres})
    return Histories(generated, themes_xt, _synthetic_groups(themes_xt, users, interactions_per_user, seed))


def _name(themes_t: np.ndarray, themes: tuple[Theme, ...], shared_words: float, rng: np.random.Generator) -> str:
    theme = themes[int(rng.choice(len(themes_t), p=themes_t))]
    words = theme.objects if rng.random() < shared_words else ("the old road", "a long week", "the other side")
    word = str(rng.choice(words)).removeprefix("a ").removeprefix("the ").title()
    return f"The {word} {rng.integers(2, 1000)}"


def _synthetic_groups(themes_xt: np.ndarray, users: int, mean_length: float, seed: int) -> Iterator[Viewings]:
    count = len(themes_xt)
    popularity_x = -0.8 * np.log(np.random.default_rng([seed, 3]).permutation(count) + 5.0)
    size = max(1, min(GROUP_USERS, _GROUP_SCORES // count))
    for first in range(0, users, size):
        rng = np.random.default_rng([seed, 4, first])
        user_ids = [f"u{number:08d}" for number in range(first, min(first + size, users))]
        yield _synthetic_viewings(user_ids, themes_xt, popularity_x, mean_length, rng)


def _synthetic_viewings(
    user_ids: list[str], themes_xt: np.ndarray, popularity_x: np.ndarray, mean_length: float, rng: np.random.Generator
) -> Viewings:
    users, (titles, themes) = len(user_ids), themes_xt.shape
    taste_ut = rng.dirichlet(np.full(themes, 0.3), users)
    scores_ux = popularity_x + 2.0 * themes * (taste_ut @ themes_xt.T) / 2.0 + rng.gumbel(size=(users, titles))
    lengths_u = np.rint(rng.lognormal(math.log(mean_length) - 0.08, 0.4, users))
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
    watch_seconds = rng.gamma(2.0, 1800.0, len(owners)).round()
    return Viewings(user_ids, taste_ut, owners, watched[shuffled], seconds[by_time], watch_seconds)


def movielens_histories(users: int | None, titles: int | None, themes: int) -> Histories:
    """Fetches MovieLens 100K with pip and returns its ratings as viewings.

    Args:
        users: number of users, those with the smallest ids; all 943 if None.
        titles: number of titles, the most watched; all 1,682 if None.

    Raises:
        InputError: if the package cannot be fetched.
    """
    files = packages.package_files(_PACKAGE, _PACKAGE_SHA256, ["ml-100k/ml-100k.inter", "ml-100k/ml-100k.item"])
    # Quotes have no meaning, and no text means a missing value.
    types = {"release_year:token": str}
    ratings, items = (
        pd.read_csv(file, sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, dtype=types) for file in files
    )
    user, title = ratings["user_id:token"].to_numpy(), ratings["item_id:token"].to_numpy()
    keep = np.isin(user, np.unique(user)[:users])
    watched, counts = np.unique(title[keep], return_counts=True)
    kept_titles = np.sort(watched[np.lexsort((watched, -counts))][:titles])
    ratings = ratings[keep & np.isin(title, kept_titles)]
    ratings = ratings.sort_values(["user_id:token", "timestamp:float", "item_id:token"])
    user_numbers, user_i = np.unique(ratings["user_id:token"], return_inverse=True)
    title_i = np.searchsorted(kept_titles, ratings["item_id:token"])
    seconds = ratings["timestamp:float"].to_numpy().astype(np.int64)
    items = items.set_index("item_id:token").loc[kept_titles]
    names, years, labels = (items[name].tolist() for name in items.columns)
    genres = [[genre for genre in each.split() if genre != "unknown"] for each in labels]
    title_ids = [f"ml{number}" for number in kept_titles.tolist()]
    known_years = [int(year) if year.isdigit() else None for year in years]
    kept = pa.table({"title_id": title_ids, "name": names, "year": known_years, "genres": genres})
    themes_xt = genre_themes(genres, themes)
    user_ids = [f"ml{number}" for number in user_numbers.tolist()]
    viewings = Viewings(user_ids, _tastes(themes_xt, user_i, title_i), user_i, title_i, seconds, None)
    return Histories(kept, themes_xt, iter([viewings]))


def _tastes(themes_xt: np.ndarray, users: np.ndarray, titles: np.ndarray) -> np.ndarray:
    """Returns what each user watched more of than others do, sharpened: [U, T]; rows sum to 1."""
    share_ut = np.zeros((users.max() + 1, themes_xt.shape[1]))
    np.add.at(share_ut, users, themes_xt[titles])
    share_ut /= share_ut.sum(axis=1, keepdims=True)
    taste_ut = (share_ut / share_ut.mean(axis=0)) ** _TASTE_SHARPNESS
    return taste_ut / taste_ut.sum(axis=1, keepdims=True)
