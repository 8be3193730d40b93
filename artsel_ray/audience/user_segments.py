"""In what the users of an artwork differ from the title's other users: what they watch, and the model's rationales.

Suffixes: n predictions of a title, g genres.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artsel_ray.audience.scored_run import ScoredRun, UserGenres
from artsel_ray.data.catalog import Catalog

# Standard errors from which a difference counts: of dozens of genres some are two away by chance.
_MIN_GENRE_ERRORS = 3.0
_MAX_GENRES = 3
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


def find_segments(scored: ScoredRun, catalog: Catalog, user_genres: UserGenres, min_users: int) -> list[UserSegment]:
    """Returns a segment for each artwork that anybody got, by title, those of most users first.

    Args:
        min_users: segments of fewer users are counted and not described.
    """
    return [
        segment for title in scored.titles() for segment in _segments_of(title, scored, catalog, user_genres, min_users)
    ]


def _segments_of(
    title: slice, scored: ScoredRun, catalog: Catalog, user_genres: UserGenres, min_users: int
) -> list[UserSegment]:
    share_ng = user_genres.share_ug[scored.user_n[title]]
    terms_n = [_terms(rationale) for rationale in scored.rationale_n[title].to_pylist()]
    artworks, counts = np.unique(scored.artwork_n[title], return_counts=True)
    segments = []
    for artwork, users in sorted(zip(artworks, counts, strict=True), key=lambda each: -each[1]):
        inside_n = scored.artwork_n[title] == artwork
        described = users >= min_users
        segments.append(
            UserSegment(
                title_id=catalog.title_ids[int(scored.title_n[title.start])].as_py(),
                artwork_id=catalog.artwork_ids[int(artwork)].as_py(),
                users=int(users),
                share=float(inside_n.mean()),
                over_indexed_genres=over_indexed_genres(share_ng, inside_n, user_genres.genres) if described else [],
                distinctive_terms=distinctive_terms(terms_n, inside_n, min_users) if described else [],
            )
        )
    return segments


def over_indexed_genres(
    share_ng: NDArray[np.float32], inside_n: NDArray[np.bool_], genres: list[str]
) -> list[OverIndexedGenre]:
    """Returns at most three genres that some of a title's users watch more than its others, the most certain first.

    A genre counts if the difference of the two means is more than three of its standard errors, of two means of
    unequal variances: Welch, "The generalization of Student's problem", 1947.

    Args:
        share_ng: each user's share of each genre.
        inside_n: the users to describe.
        genres: [g]
    """
    groups = [share_ng[inside_n].astype(np.float64), share_ng[~inside_n].astype(np.float64)]
    if min(map(len, groups)) < 2:
        return []
    (inside, outside), variances = [g.mean(axis=0) for g in groups], [g.var(axis=0, ddof=1) / len(g) for g in groups]
    error = np.sqrt(np.maximum(variances[0] + variances[1], 1e-12))
    difference = inside - outside
    return [
        OverIndexedGenre(
            genre=genres[g],
            inside=float(inside[g]),
            outside=float(outside[g]),
            low=float(difference[g] - 1.96 * error[g]),
            high=float(difference[g] + 1.96 * error[g]),
        )
        for g in np.argsort(-difference / error)[:_MAX_GENRES]
        if difference[g] > _MIN_GENRE_ERRORS * error[g]
    ]


def distinctive_terms(terms_n: Sequence[set[str]], inside_n: NDArray[np.bool_], min_users: int) -> list[str]:
    """Returns at most six terms that are more frequent in some users' rationales than in others', most certain first.

    A term counts if the two shares of rationales differ by more than four standard errors (the test of two
    proportions), and if `min_users` rationales or more have it: none describes a single user.

    Args:
        terms_n: each rationale's terms; empty without a rationale.
        inside_n: the users to describe.
    """
    inside, outside = (
        Counter(term for n in np.flatnonzero(mask) for term in terms_n[n]) for mask in (inside_n, ~inside_n)
    )
    has_rationale_n = np.array([bool(terms) for terms in terms_n], dtype=bool)
    sizes = int((has_rationale_n & inside_n).sum()), int((has_rationale_n & ~inside_n).sum())
    if not min(sizes):
        return []
    errors = {}
    for term, count in inside.items():
        pooled = (count + outside[term]) / sum(sizes)
        spread = (pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1])) ** 0.5
        if count >= min_users and spread > 0:
            errors[term] = (count / sizes[0] - outside[term] / sizes[1]) / spread
    most_certain = sorted(errors, key=lambda term: -errors[term])[:_MAX_TERMS]
    return [term for term in most_certain if errors[term] > _MIN_TERM_ERRORS]


def _terms(rationale: str | None) -> set[str]:
    return set(_TERM.findall((rationale or "").casefold()))
