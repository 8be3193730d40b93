"""Which taste gets which artwork of a title, and why: a finished night in a table for people."""

import re
import time
from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.audience.user_segments import (
    ScoredRun,
    UserGenres,
    asset_kind_of,
    over_indexed_genres,
    read_scored_run,
    read_user_genres,
)
from artsel_ray.config import resolved
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.errors import InputError
from artsel_ray.runtime import run as runs
from artsel_ray.schema import USER_SEGMENTS

_WORD = re.compile(r"[^\W\d_]{3,}")
_MAX_TERMS = 6
# Standard errors from which a word counts as one's own: thousands of words are looked at.
_MIN_STANDARD_ERRORS = 4.0


def explain(config: ExplainConfig) -> None:
    """Writes tastes.parquet, one row for each artwork that anybody got, config.json, summary.json and the manifest.

    Raises:
        InputError: for wrong input, or a night that is not finished.
    """
    begun = time.perf_counter()
    if config.min_users < 2:
        raise InputError(f"--least-users is {config.min_users}, expected 2 or more: one user is nobody's business")
    parts = runs.parts(config.predictions)
    tables = storage.list_files(config.titles), storage.list_files(config.artworks)
    catalog, _, _ = read_catalog(*tables, asset_kind_of(config.predictions), assets=None)
    decides = {name: value for name, value in resolved(config).items() if name != "output"}
    run = runs.begin(config.output, decides, resolved(config))
    user_genres = read_user_genres(storage.list_files(config.requests))
    scored = read_scored_run(parts, catalog, user_genres, ranked=False)
    rows = _rows(scored, catalog, user_genres, config.min_users)
    table = pa.Table.from_pylist(rows, USER_SEGMENTS)
    storage.write_table(storage.join(config.output, "tastes.parquet"), table, "tastes")
    told = sum(bool(row["favourites"] or row["words"]) for row in rows)
    summary = {
        "pairs": len(scored.user_n),
        "users": len(user_genres.user_ids),
        "titles": len({row["title_id"] for row in rows}),
        "artworks": len(rows),
        "artworks_of_a_taste": told,
        "reasons": len(scored.reason_n) - scored.reason_n.null_count,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish({"parts": ["tastes.parquet"], "artworks": len(rows)})
    print(
        f"{summary['pairs']:,} pairs of {summary['titles']:,} titles: {told:,} of {len(rows):,} artworks go to "
        f"users of a taste of their own; {config.output}",
        flush=True,
    )


def _rows(scored: ScoredRun, catalog: Catalog, user_genres: UserGenres, min_users: int) -> list[dict[str, object]]:
    """Returns the table's rows, by title, and in a title by the number of users."""
    rows: list[dict[str, object]] = []
    for title in scored.titles():
        share_ng = user_genres.share_ug[scored.user_n[title]]
        said = [_words(reason) for reason in scored.reason_n[title].to_pylist()]
        artworks, counts = np.unique(scored.artwork_n[title], return_counts=True)
        for artwork, users in sorted(zip(artworks, counts, strict=True), key=lambda each: -each[1]):
            inside_n = scored.artwork_n[title] == artwork
            of_many = users >= min_users
            rows.append(
                {
                    "title_id": catalog.title_ids[int(scored.title_n[title.start])].as_py(),
                    "artwork_id": catalog.artwork_ids[int(artwork)].as_py(),
                    "users": int(users),
                    "share": float(inside_n.mean()),
                    "favourites": over_indexed_genres(share_ng, inside_n, user_genres.genres) if of_many else [],
                    "words": distinctive_terms(said, inside_n, min_users) if of_many else [],
                }
            )
    return rows


def _words(reason: str | None) -> set[str]:
    return set(_WORD.findall((reason or "").casefold()))


def distinctive_terms(said: list[set[str]], inside_n: NDArray[np.bool_], min_users: int) -> list[str]:
    """Returns the words that reasons of some users have more often than those of the others, the surest first.

    By the test of two proportions, four standard errors apart, and only words of `min_users` reasons or more, so that
    none tells of one user alone.
    """
    inside, outside = (
        Counter(word for n in np.flatnonzero(mask) for word in said[n]) for mask in (inside_n, ~inside_n)
    )
    sizes = sum(bool(said[n]) for n in np.flatnonzero(inside_n)), sum(bool(said[n]) for n in np.flatnonzero(~inside_n))
    if not min(sizes):
        return []
    errors = {}
    for word, count in inside.items():
        pooled = (count + outside[word]) / sum(sizes)
        spread = (pooled * (1 - pooled) * (1 / sizes[0] + 1 / sizes[1])) ** 0.5
        if count >= min_users and spread > 0:
            errors[word] = (count / sizes[0] - outside[word] / sizes[1]) / spread
    return [
        word
        for word in sorted(errors, key=lambda word: -errors[word])[:_MAX_TERMS]
        if errors[word] > _MIN_STANDARD_ERRORS
    ]
