"""The three stages of `prepare`: what one task does with one item, from storage to storage.

Every object's name depends on nothing but its item, so the output is the same on any number of CPUs.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artsel_ray import schema, storage
from artsel_ray.config import Assets
from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog, with_source_rows
from artsel_ray.errors import InputError
from artsel_ray.prepare import examples, splits

Counts = Counter[str]
"""Rows by what became of them: `not_engaged`, `examples/train`, `invalid/impressions/COLUMN: REASON` and so on."""

SLICE_ROWS = 1 << 20
PART_BATCHES = 16
# What repeats within a batch. Of the others a dictionary would only be a second copy.
_DICTIONARY_LEAVES = [
    "user_id",
    "title_id",
    "title_name",
    "title_genres.list.element",
    "history.list.element.title_name",
    "history.list.element.genres.list.element",
    "candidates.list.element.artwork_id",
    "candidates.list.element.caption",
    "image_uris.list.element",
]


@dataclass(frozen=True)
class Slice:
    """Some row groups of one file of interactions or impressions."""

    table: Literal["interactions", "impressions"]
    file: int
    groups: tuple[int, ...]
    first_row: int
    rows: int


@dataclass(frozen=True)
class Plan:
    """What every task of a run knows."""

    output: str
    files: dict[str, list[str]]
    slices: list[Slice]
    buckets: int
    history_length: int
    split: Literal["hash", "time"]
    seed: int
    now_us: int
    assets: Assets = "caption"

    def work(self, kind: str, number: int) -> str:
        """Returns the URI of a work object."""
        return storage.join(self.output, "_work", f"{kind}-{number:06d}.arrow")

    def slices_of(self, table: str) -> list[str]:
        """Returns the work objects of a table's slices, in the order of its rows."""
        return [self.work("slice", n) for n, part in enumerate(self.slices) if part.table == table]


def slices(table: Literal["interactions", "impressions"], files: list[str]) -> list[Slice]:
    """Cuts files into runs of row groups of about `SLICE_ROWS` rows.

    Raises:
        InputError: if a file is broken or is not such a table.
    """
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda file: _slices_of_file(table, *file), enumerate(files))
        return [part for parts in found for part in parts]


def _slices_of_file(table: Literal["interactions", "impressions"], file: int, uri: str) -> list[Slice]:
    parquet = storage.open_parquet(uri)
    schema.conform(parquet.schema_arrow, table, uri)
    found, groups, first_row, rows = [], [], 0, 0
    for group in range(parquet.num_row_groups):
        groups.append(group)
        rows += parquet.metadata.row_group(group).num_rows
        if rows >= SLICE_ROWS or group == parquet.num_row_groups - 1:
            found.append(Slice(table, file, tuple(groups), first_row, rows))
            groups, first_row, rows = [], first_row + rows, 0
    return found


def write_invalid(plan: Plan, name: str, invalid: pa.Table) -> Counts:
    """Writes one object of rejected rows, if there are any, and counts them by table and reason."""
    if invalid.num_rows:
        storage.write_table(storage.join(plan.output, "rejected", f"part-{name}.parquet"), invalid, "rejected")
    grouped = invalid.group_by(["table", "column", "reason"]).aggregate([("row", "count")]).to_pylist()
    return Counter({f"rejected/{row['table']}/{row['column']}: {row['reason']}": row["row_count"] for row in grouped})


def partition_slice(plan: Plan, number: int, catalog: Catalog) -> Counts:
    """Checks a slice's rows and writes the good ones as one object ordered by bucket of users."""
    part = plan.slices[number]
    files = plan.files[part.table]
    table = with_source_rows(_read(part, files[part.file]), part.file, part.first_row)
    table, unreadable = checks.split_readable(table, part.table, files)
    other_kind = 0
    if part.table == "impressions":
        other = pc.is_in(table["artwork_id"], catalog.other_ids)
        table, other_kind = table.filter(pc.invert(other)), pc.sum(other).as_py() or 0
    title = checks.codes(table["title_id"], catalog.title_ids)
    found: list[checks.RowCheck] = [
        *((c, checks.MISSING, checks.missing(table[c])) for c in ("user_id", "title_id", "timestamp")),
        ("title_id", checks.UNKNOWN_TITLE, title < 0),
        ("timestamp", "later than now", checks.later_than(table["timestamp"], plan.now_us)),
    ]
    table = table.append_column("title", pa.array(title))
    if part.table == "interactions":
        found.append(("watch_seconds", checks.WRONG_WATCH, checks.watch_is_wrong(table["watch_seconds"])))
    else:
        table, more = _find_labels(table, title, catalog)
        found += more
    good, bad = checks.split_valid(table, part.table, files, found)
    good = good.drop_columns([name for name in ("title_id", "artwork_id") if name in good.column_names])
    shuffle.write_partitions(plan.work("slice", number), good, _buckets(good["user_id"], plan.buckets), plan.buckets)
    counts = write_invalid(plan, f"slice-{number:06d}", pa.concat_tables([unreadable, bad]))
    counts.update(other_kind=other_kind)
    return counts


def _read(part: Slice, uri: str) -> pa.Table:
    parquet = storage.open_parquet(uri)
    names = [name for name in schema.TABLES[part.table].names if name in parquet.schema_arrow.names]
    try:
        table = parquet.read_row_groups(list(part.groups), columns=names, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {uri} as Parquet: {str(error).splitlines()[0]}") from None
    return schema.cast(table, part.table, uri)


def _find_labels(table: pa.Table, title: np.ndarray, catalog: Catalog) -> tuple[pa.Table, list[checks.RowCheck]]:
    """Appends the shown artwork's place among the title's candidates, with the checks of impressions."""
    label = checks.codes(table["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.diff(catalog.offsets, append=catalog.offsets[-1])[title]
    found: list[checks.RowCheck] = [
        ("artwork_id", checks.MISSING, checks.missing(table["artwork_id"])),
        ("engaged", checks.MISSING, checks.missing(table["engaged"])),
        ("title_id", "the title has no candidates", candidates == 0),
        ("artwork_id", "not among the title's candidates", (label < 0) | (label >= candidates)),
        ("propensity", checks.WRONG_PROPENSITY, checks.propensity_is_wrong(table["propensity"])),
    ]
    return table.append_column("label", pa.array(label.astype(np.int32))), found


def _buckets(user_ids: pa.ChunkedArray, buckets: int) -> np.ndarray:
    """Returns each user's bucket; it depends on the id alone."""
    encoded = user_ids.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
    bucket = pd.util.hash_array(names, categorize=False) % np.uint64(buckets)
    return bucket.astype(np.int64)[encoded.indices.to_numpy()]


def bucket_pairs(plan: Plan, bucket: int, catalog: Catalog) -> tuple[Counts, splits.Keys]:
    """Finds a bucket's pairs and their histories, keeps them as work objects, and returns the pairs' keys."""
    interactions = shuffle.read_partition(plan.slices_of("interactions"), bucket)
    impressions = shuffle.read_partition(plan.slices_of("impressions"), bucket)
    found = examples.find_pairs(interactions, impressions, plan.files, catalog, plan.history_length)
    counts = write_invalid(plan, f"bucket-{bucket:06d}", found.invalid)
    counts.update(not_engaged=found.not_engaged, repeated=found.repeated, pairs=found.pairs.num_rows)
    for kind, table in (("pairs", found.pairs), ("histories", found.interactions)):
        shuffle.write_partitions(plan.work(kind, bucket), table, np.zeros(table.num_rows, np.int64), 1)
    return counts, _keys(plan, found.pairs, catalog)


def _keys(plan: Plan, pairs: pa.Table, catalog: Catalog) -> splits.Keys:
    titles = catalog.title_ids.take(pairs["title"].combine_chunks())
    times = pairs["timestamp"].cast(pa.int64()).to_numpy()
    return splits.pair_keys(pairs["user_id"].combine_chunks(), titles, times, plan.split, plan.seed)


def bucket_examples(
    plan: Plan, bucket: int, catalog: Catalog, contents: pa.Array, last: list[tuple[int, int]]
) -> Counts:
    """Writes a bucket's examples of each split, and the requests of its test examples."""
    pairs = shuffle.read_partition([plan.work("pairs", bucket)], 0)
    interactions = shuffle.read_partition([plan.work("histories", bucket)], 0)
    split = splits.assign(_keys(plan, pairs, catalog), last)
    counts: Counts = Counter(not_selected=int((split == len(splits.SPLITS)).sum()))
    for number, name in enumerate(splits.SPLITS):
        chosen = pairs.filter(split == number)
        counts[f"examples/{name}"] = chosen.num_rows
        batches = examples.example_batches(chosen, interactions, catalog, contents, plan.assets)
        write_examples(storage.join(plan.output, "examples", name), bucket, batches)
        if name == "test" and chosen.num_rows:
            asked = examples.requests(chosen, interactions, catalog)
            counts["requests"] = asked.num_rows
            storage.write_table(storage.join(plan.output, "requests", "test", _part(bucket, 0)), asked, "requests")
    return counts


def _part(bucket: int, number: int) -> str:
    return f"part-{bucket:06d}-{number:03d}.parquet"


def write_examples(folder: str, bucket: int, batches: Iterator[pa.Table]) -> None:
    """Writes batches as row groups, up to `PART_BATCHES` in an object; holds one batch and compressed bytes."""
    for number in itertools.count():
        if (first := next(batches, None)) is None:
            return
        sink = pa.BufferOutputStream()
        # Without the Arrow schema in the file: it would say dictionary where readers should see plain strings.
        with pq.ParquetWriter(
            sink,
            first.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=_DICTIONARY_LEAVES,
            dictionary_pagesize_limit=1 << 30,
            write_statistics=False,
            store_schema=False,
        ) as writer:
            for batch in itertools.chain([first], itertools.islice(batches, PART_BATCHES - 1)):
                writer.write_table(batch)
        storage.write_object(storage.join(folder, _part(bucket, number)), sink.getvalue())
