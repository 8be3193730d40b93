"""Segments of a title's users: those who got an artwork, those whom none suits, and in what they differ from others.

Suffixes: n predictions of a title, g genres.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artsel_ray.audience.scored_run import ScoredRun
from artsel_ray.data.catalog import Catalog

# Standard errors from which a difference counts: of dozens of genres some are two away by chance.
_MIN_GENRE_ERRORS = 3.0
_MAX_GENRES = 3
_DIGITS = 2  # of a share: more would tell what single users watch
# The same for terms, of which thousands are compared.
_MIN_TERM_ERRORS = 4.0
_MAX_TERMS = 6
_TERM = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class OverIndexedGenre:
    """A genre that some of a title's users watch more than its others do."""

    genre: str
    inside: float
    """Mean share of the genre in what these users watched."""
    outside: float
    """The same of the other users."""
    low: float
    """95 % interval of the difference: `low` to `high`."""
    high: float


@dataclass(frozen=True)
class UserSegment:
    """The users who got an artwork of a title; a row of the table `user_segments`."""

    title_id: str
    artwork_id: str
    users: int
    share: float
    """Fraction of the title's users."""
    over_indexed_genres: list[OverIndexedGenre]
    distinctive_terms: list[str]


@dataclass(frozen=True)
class Gap:
    """Users of a title whom no artwork suits."""

    title: int
    """Index into the catalog."""
    users: int
    title_users: int
    over_indexed_genres: list[OverIndexedGenre]


def find_segments(scored: ScoredRun, catalog: Catalog, min_users: int) -> list[UserSegment]:
    """Returns a segment for each artwork that anybody got, by title, largest first; describes those of `min_users`."""
    segments = []
    for title in scored.titles():
        share_ng = scored.user_genres.share_ug[scored.user_n[title]]
        terms_n = [set(_TERM.findall((text or "").casefold())) for text in scored.rationale_n[title].to_pylist()]
        artworks, counts = np.unique(scored.artwork_n[title], return_counts=True)
        for artwork, users in sorted(zip(artworks.tolist(), counts.tolist(), strict=True), key=lambda each: -each[1]):
            inside_n = scored.artwork_n[title] == artwork
            genres = over_indexed_genres(share_ng, inside_n, scored.user_genres.genres, min_users)
            terms = distinctive_terms(terms_n, inside_n, min_users)
            ids = catalog.title_ids[int(scored.title_n[title.start])].as_py(), catalog.artwork_ids[artwork].as_py()
            segments.append(UserSegment(*ids, users, float(inside_n.mean()), genres, terms))
    return segments


def find_gaps(scored: ScoredRun, share: float, min_users: int) -> list[Gap]:
    """Returns at most one gap for each title, those of most users first.

    The `share` of a title's users with the least personalized scores are compared with the others: where they watch
    more of a genre, no candidate serves it. Fewer than `min_users` users are no gap.
    """
    gaps = []
    for title in scored.titles():
        kl_divergence_n, share_ng = scored.kl_divergence_n[title], scored.user_genres.share_ug[scored.user_n[title]]
        inside_n = kl_divergence_n <= np.quantile(kl_divergence_n, share)
        genres = over_indexed_genres(share_ng, inside_n, scored.user_genres.genres, min_users)
        columns = [scored.user_genres.genres.index(each.genre) for each in genres]
        watches_more_n = (share_ng[:, columns] > np.array([each.outside for each in genres])).any(axis=1)
        users = int((inside_n & watches_more_n).sum())
        if genres and users >= min_users:
            gaps.append(Gap(int(scored.title_n[title.start]), users, len(inside_n), genres))
    return sorted(gaps, key=lambda gap: -gap.users)


def over_indexed_genres(
    share_ng: NDArray[np.float32], inside_n: NDArray[np.bool_], genres: list[str], min_users: int
) -> list[OverIndexedGenre]:
    """Returns at most three genres that the users `inside_n` of a title watch more than its others, surest first.

    A genre counts if the difference of the two means is more than three of its standard errors, of two means of
    unequal variances: Welch, "The generalization of Student's problem", 1947. What is said is of `min_users` or more:
    both groups have as many, and so many of these users watch the genre. The numbers are rounded.
    """
    groups = [share_ng[inside_n].astype(np.float64), share_ng[~inside_n].astype(np.float64)]
    if min(map(len, groups)) < max(2, min_users):
        return []
    is_common_g = (groups[0] > 0).sum(axis=0) >= min_users
    (inside, outside), variances = [g.mean(axis=0) for g in groups], [g.var(axis=0, ddof=1) / len(g) for g in groups]
    error = np.sqrt(np.maximum(variances[0] + variances[1], 1e-12))
    difference = inside - outside
    # The fields of `OverIndexedGenre`, by genre.
    columns = np.stack([inside, outside, difference - 1.96 * error, difference + 1.96 * error], axis=1)
    return [
        OverIndexedGenre(genres[g], *columns[g].round(_DIGITS).tolist())
        for g in np.argsort(np.where(is_common_g, -difference / error, np.inf))[:_MAX_GENRES]
        if is_common_g[g] and difference[g] > _MIN_GENRE_ERRORS * error[g]
    ]


def distinctive_terms(terms_n: Sequence[set[str]], inside_n: NDArray[np.bool_], min_users: int) -> list[str]:
    """Returns at most six terms that are more frequent in rationales of the users `inside_n` than of others.

    A term counts if the two shares of rationales differ by more than four standard errors (the test of two
    proportions), and if `min_users` rationales or more have it: none describes a single user. The surest come first.
    """
    inside, outside = (
        Counter(term for n in np.flatnonzero(mask) for term in terms_n[n]) for mask in (inside_n, ~inside_n)
    )
    has_rationale_n = np.array([bool(terms) for terms in terms_n], dtype=bool)
    sizes = int((has_rationale_n & inside_n).sum()), int((has_rationale_n & ~inside_n).sum())
    if min(sizes) < max(1, min_users):
        return []
    errors = {}
    for term, count in inside.items():
        pooled = (count + outside[term]) / sum(sizes)
        spread = (pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1])) ** 0.5
        if count >= min_users and spread > 0:
            errors[term] = (count / sizes[0] - outside[term] / sizes[1]) / spread
    most_certain = sorted(errors, key=lambda term: -errors[term])[:_MAX_TERMS]
    return [term for term in most_certain if errors[term] > _MIN_TERM_ERRORS]
