"""The explain job: which user segment gets which artwork of a title, and why, as a table and a page."""

import dataclasses
import time

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.audience.scored_run import asset_kind_of, read_scored_run
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.audience.user_segments import find_segments
from artsel_ray.config import LIMIT_FLAGS, limits_identity, resolved
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.report.html import render_user_segments
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
    limits, kind = config.limits, asset_kind_of(config.predictions)
    catalog, _ = read_catalog(titles, artworks, kind, assets=None, limits=limits)
    identity = {name: value for name, value in resolved(config).items() if name not in ("output", *LIMIT_FLAGS)}
    run = begin(config.output, identity | limits_identity(limits), resolved(config))
    scored = read_scored_run(parts, storage.list_files(config.requests), catalog, False, config.min_users, limits)
    rows = [dataclasses.asdict(segment) for segment in find_segments(scored, catalog, config.min_users)]
    storage.write_table(storage.join(config.output, _TABLE), pa.Table.from_pylist(rows, USER_SEGMENTS), "user_segments")
    names = dict(zip(catalog.title_ids.to_pylist(), catalog.names.to_pylist(), strict=True))
    # A run that chose among images may have no captions.
    captioned = CheckedReader(artworks, "artworks", ["artwork_id", "caption"], limits=limits).all().valid
    captions = dict(zip(captioned["artwork_id"].to_pylist(), captioned["caption"].to_pylist(), strict=True))
    page = render_user_segments(rows, names, captions, config.min_users)
    storage.write_object(storage.join(config.output, _PAGE), page.encode())
    titles_shown = len({row["title_id"] for row in rows})
    described = sum(bool(row["over_indexed_genres"] or row["distinctive_terms"]) for row in rows)
    summary = {
        "pairs": len(scored.user_n), "users": len(scored.user_genres.user_ids), "titles": titles_shown,
        "artworks": len(rows), "described_artworks": described,
        "rationales": len(scored.rationale_n) - scored.rationale_n.null_count,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish({"parts": [_TABLE], "artworks": len(rows)})
    print(
        f"{len(scored.user_n):,} pairs of {titles_shown:,} titles: {described:,} of {len(rows):,} artworks go to a "
        f"user segment of their own; {storage.join(config.output, _PAGE)}",
        flush=True,
    )
