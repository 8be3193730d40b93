"""Stage 1: a slice of a log is checked, and its valid rows are written as one spill file, sorted by bucket of users."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.prepare.outcomes import Counts, write_invalid
from artsel_ray.prepare.plan import Plan


def partition_slice(plan: Plan, catalog: Catalog, number: int) -> Counts:
    """Writes a slice's valid rows by bucket, and its invalid rows.

    Valid rows have the column `title`, an index into the catalog, instead of `title_id`; impressions have `label`, the
    position of the artwork among the title's candidates, instead of `artwork_id`.
    """
    table, rows = plan.slices[number]
    files = plan.files[table]
    batch = CheckedReader(files, table).rows(rows)
    readable, other_kind = batch.valid, 0
    if table == "impressions":
        is_other = pc.is_in(readable["artwork_id"], catalog.other_ids)
        readable, other_kind = readable.filter(pc.invert(is_other)), pc.sum(is_other).as_py() or 0
    title = checks.codes(readable["title_id"], catalog.title_ids)
    found: list[checks.RowCheck] = [
        *((name, checks.MISSING, checks.missing(readable[name])) for name in ("user_id", "title_id", "timestamp")),
        ("title_id", checks.UNKNOWN_TITLE, title < 0),
        ("timestamp", "later than now", checks.later_than(readable["timestamp"], plan.now_us)),
    ]
    coded = readable.append_column("title", pa.array(title))
    if table == "interactions":
        found.append(("watch_seconds", checks.WRONG_WATCH, checks.watch_is_wrong(coded["watch_seconds"])))
    else:
        label, more = _find_labels(coded, title, catalog)
        coded, found = coded.append_column("label", pa.array(label)), [*found, *more]
    valid, invalid = checks.split_valid(coded, table, files, found)
    valid = valid.drop_columns([name for name in ("title_id", "artwork_id") if name in valid.column_names])
    bucket = bucket_of(valid["user_id"], plan.buckets)
    shuffle.write_partitions(plan.spill_file("slice", number), valid, bucket, plan.buckets)
    counts = write_invalid(plan, f"slice-{number:06d}", pa.concat_tables([batch.invalid, invalid]))
    counts.update(other_kind=other_kind)
    return counts


def _find_labels(table: pa.Table, title: np.ndarray, catalog: Catalog) -> tuple[np.ndarray, list[checks.RowCheck]]:
    """Returns the position of each shown artwork among its title's candidates, int32, and the checks of impressions."""
    label = checks.codes(table["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.diff(catalog.offsets, append=catalog.offsets[-1])[title]
    found: list[checks.RowCheck] = [
        ("artwork_id", checks.MISSING, checks.missing(table["artwork_id"])),
        ("engaged", checks.MISSING, checks.missing(table["engaged"])),
        ("title_id", "the title has no candidates", candidates == 0),
        ("artwork_id", "not among the title's candidates", (label < 0) | (label >= candidates)),
        ("propensity", checks.WRONG_PROPENSITY, checks.propensity_is_wrong(table["propensity"])),
    ]
    return label.astype(np.int32), found


def bucket_of(user_ids: pa.ChunkedArray, buckets: int) -> np.ndarray:
    """Returns each user's bucket, int64; it depends on the id only."""
    encoded = user_ids.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    bucket = pd.util.hash_array(names, categorize=False) % np.uint64(buckets)
    return bucket.astype(np.int64)[encoded.indices.to_numpy()]
