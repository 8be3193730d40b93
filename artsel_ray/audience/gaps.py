"""Finds users whom none of a title's artworks suits."""

from dataclasses import dataclass

import numpy as np

from artsel_ray.audience.scored_run import ScoredRun, UserGenres
from artsel_ray.audience.user_segments import OverIndexedGenre, over_indexed_genres


@dataclass(frozen=True)
class Gap:
    """Users of a title whom no artwork suits."""

    title: int
    """Index into the catalog."""
    users: int
    title_users: int
    """All of the title's users."""
    over_indexed_genres: list[OverIndexedGenre]


def find_gaps(scored: ScoredRun, user_genres: UserGenres, share: float, min_users: int) -> list[Gap]:
    """Returns at most one gap for each title, those of most users first.

    The `share` of a title's users with the least personalized scores are compared with the others: where they watch
    more of a genre, no candidate serves it. Fewer than `min_users` users are no gap.
    """
    gaps = []
    for title in scored.titles():
        kl_divergence_n, share_ng = scored.kl_divergence_n[title], user_genres.share_ug[scored.user_n[title]]
        inside_n = kl_divergence_n <= np.quantile(kl_divergence_n, share)
        genres = over_indexed_genres(share_ng, inside_n, user_genres.genres)
        if not genres:
            continue
        columns = [user_genres.genres.index(each.genre) for each in genres]
        outside = np.array([each.outside for each in genres])
        users = int((inside_n & (share_ng[:, columns] > outside).any(axis=1)).sum())
        if users >= min_users:
            gaps.append(Gap(int(scored.title_n[title.start]), users, len(kl_divergence_n), genres))
    return sorted(gaps, key=lambda gap: -gap.users)
