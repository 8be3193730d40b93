"""Titles and the histories of who watched them: what a source of a simulated world returns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Titles:
    """X titles."""

    title_ids: list[str]
    names: list[str]
    years: list[int | None]
    genres: list[list[str]]


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
    """[I] time watched, in seconds; None if unknown."""

    def __len__(self) -> int:
        """Returns the number of viewings."""
        return len(self.users)

    def part(self, start: int, stop: int) -> "Viewings":
        """Returns the viewings from `start` to `stop`, of the same users."""
        watched = self.watch_seconds
        return replace(
            self,
            users=self.users[start:stop],
            titles=self.titles[start:stop],
            seconds=self.seconds[start:stop],
            watch_seconds=None if watched is None else watched[start:stop],
        )


@dataclass(frozen=True)
class Histories:
    """Titles, and the viewings of one group of users after another, so that memory does not grow with the users."""

    titles: Titles
    themes_xt: np.ndarray
    """Weights of each title's themes; rows sum to 1."""
    groups: Iterator[Viewings]
