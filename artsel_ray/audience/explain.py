"""The explain job: which user segment gets which artwork of a title, and why, as a table and a page."""

import dataclasses
import time

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.audience.scored_run import asset_kind_of, read_scored_run, read_user_genres
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.audience.user_segments import find_segments
from artsel_ray.config import resolved
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.report.titles import render_user_segments
from artsel_ray.runtime.run import begin, finished_parts
from artsel_ray.schema import USER_SEGMENTS

_TABLE, _PAGE = "user_segments.parquet", "report.html"


def explain(config: ExplainConfig) -> None:
    """Writes a row for each artwork that anybody got, a page that shows them, config.json, summary.json and a manifest.

    Raises:
        InputError: for wrong input, or a scoring run that has not finished.
    """
    started = time.perf_counter()
    parts = finished_parts(config.predictions)
    titles, artworks = storage.list_files(config.titles), storage.list_files(config.artworks)
    catalog, _ = read_catalog(titles, artworks, asset_kind_of(config.predictions), assets=None)
    identity = {name: value for name, value in resolved(config).items() if name != "output"}
    run = begin(config.output, identity, resolved(config))
    user_genres = read_user_genres(storage.list_files(config.requests))
    scored = read_scored_run(parts, catalog, user_genres, ranked=False)
    segments = find_segments(scored, catalog, user_genres, config.min_users)
    rows = [dataclasses.asdict(segment) for segment in segments]
    storage.write_table(storage.join(config.output, _TABLE), pa.Table.from_pylist(rows, USER_SEGMENTS), "user_segments")
    names = dict(zip(catalog.title_ids.to_pylist(), catalog.names.to_pylist(), strict=True))
    page = render_user_segments(rows, names, _captions(artworks), config.min_users)
    storage.write_object(storage.join(config.output, _PAGE), page.encode())
    summary = {
        "pairs": len(scored.user_n),
        "users": len(user_genres.user_ids),
        "titles": len({segment.title_id for segment in segments}),
        "artworks": len(segments),
        "described_artworks": sum(
            bool(segment.over_indexed_genres or segment.distinctive_terms) for segment in segments
        ),
        "rationales": len(scored.rationale_n) - scored.rationale_n.null_count,
        "seconds": round(time.perf_counter() - started, 1),
    }
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish({"parts": [_TABLE], "artworks": len(segments)})
    print(
        f"{summary['pairs']:,} pairs of {summary['titles']:,} titles: {summary['described_artworks']:,} of "
        f"{len(segments):,} artworks go to a user segment of their own; {storage.join(config.output, _PAGE)}",
        flush=True,
    )


def _captions(artworks: list[str]) -> dict[str, str]:
    """Returns captions by artwork id; a run that chose among images may have none."""
    valid = CheckedReader(artworks, "artworks", ["artwork_id", "caption"]).all().valid
    return dict(zip(valid["artwork_id"].to_pylist(), valid["caption"].to_pylist(), strict=True))
