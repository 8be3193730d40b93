"""Stage 3: a bucket's pairs become examples of their splits, and the test's pairs requests."""

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artsel_ray import schema, storage
from artsel_ray.config import Assets
from artsel_ray.data import shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.prepare import splits
from artsel_ray.prepare.pairs import groups_of, keys_of, microseconds
from artsel_ray.prepare.plan import Counts, Plan

BATCH_ROWS, BATCH_BYTES, _PART_BATCHES = 2_048, 64 << 20, 16
# Columns whose values repeat within a batch; for the others a dictionary would only be a second copy.
_DICTIONARY_LEAVES = [
    *("user_id", "title_id", "title_name", "title_genres.list.element", "image_uris.list.element"),
    *(f"history.list.element.{leaf}" for leaf in ("title_name", "genres.list.element")),
    *(f"candidates.list.element.{leaf}" for leaf in ("artwork_id", "caption")),
]


def bucket_examples(plan: Plan, catalog: Catalog, last_g: list[list[tuple[int, int]]], bucket: int) -> Counts:
    """Writes a bucket's examples of each split, and the requests of its test examples.

    `last_g` are the splits' last keys for each group of titles.
    """
    pairs = shuffle.read_partition([plan.spill_file("pairs", bucket)], 0)
    interactions = shuffle.read_partition([plan.spill_file("histories", bucket)], 0)
    group_n = groups_of(plan, pairs)
    split = splits.assign_groups(keys_of(plan, pairs, catalog), group_n, last_g)
    counts: Counts = Counter(not_selected=int((split == len(splits.SPLITS)).sum()))
    for number, name in enumerate(splits.SPLITS):
        chosen = pairs.filter(split == number)
        counts[f"examples/{name}"] = chosen.num_rows
        if plan.group_x is not None:
            counts[f"new_titles/{name}"] = int((group_n[split == number] != splits.KNOWN).sum())
        batches = example_batches(chosen, interactions, catalog, plan.assets)
        write_examples(storage.join(plan.output, "examples", name), bucket, batches)
        if name == "test" and chosen.num_rows:
            asked = requests(chosen, interactions, catalog)
            counts["requests"] = asked.num_rows
            uri = storage.join(plan.output, "requests", "test", f"part-{bucket:06d}-000.parquet")
            storage.write_table(uri, asked, "requests")
    return counts


def write_examples(folder: str, bucket: int, batches: Iterator[pa.Table]) -> None:
    """Writes batches as row groups, up to `_PART_BATCHES` in a part; holds one batch and the compressed part."""
    for number in itertools.count():
        if (first := next(batches, None)) is None:
            return
        sink = pa.BufferOutputStream()
        # Without the Arrow schema in the file, which would say dictionary where readers expect plain strings.
        options = {"dictionary_pagesize_limit": 1 << 30, "write_statistics": False, "store_schema": False}
        compression = {"compression": "zstd", "compression_level": 1, "use_dictionary": _DICTIONARY_LEAVES}
        with pq.ParquetWriter(sink, first.schema, **compression, **options) as writer:
            for batch in itertools.chain([first], itertools.islice(batches, _PART_BATCHES - 1)):
                writer.write_table(batch)
        storage.write_object(storage.join(folder, f"part-{bucket:06d}-{number:03d}.parquet"), sink.getvalue())


def write_empty_splits(output: str, counts: Counts) -> None:
    """Writes a part without rows for each split without examples or requests, so that its readers find a table."""
    for folder in (*(f"examples/{name}" for name in splits.SPLITS), "requests/test"):
        table, _, name = folder.partition("/")
        if not counts["requests" if table == "requests" else folder]:
            uri = storage.join(output, table, name, "part-empty.parquet")
            storage.write_table(uri, schema.TABLES[table].empty_table(), table)


def example_ids(pairs: pa.Table, catalog: Catalog) -> list[str]:
    """Returns stable hashes of user, title and time."""
    titles = catalog.title_ids.take(pairs["title"].combine_chunks()).to_pylist()
    keys = zip(pairs["user_id"].to_pylist(), titles, microseconds(pairs).tolist(), strict=True)
    return [storage.fingerprint(*key) for key in keys]


def example_batches(
    pairs: pa.Table, interactions: pa.Table, catalog: Catalog, assets: Assets = "caption"
) -> Iterator[pa.Table]:
    """Yields examples, ordered by example_id, in batches of bounded size, however long the captions.

    Candidates are dictionary arrays: a batch holds each caption once. The pairs are those of `Pairs.pairs`.
    """
    pairs = pairs.append_column("example_id", pa.array(example_ids(pairs, catalog), pa.string()))
    pairs = pairs.sort_by("example_id")
    ends = np.concatenate([[0], np.cumsum(pc.binary_length(catalog.contents).to_numpy())])[catalog.offsets]
    filled = np.cumsum(np.diff(ends)[pairs["title"].to_numpy()])
    start = 0
    while start < pairs.num_rows:
        limit = BATCH_BYTES + (filled[start - 1] if start else 0)
        stop = min(max(start + 1, int(np.searchsorted(filled, limit, side="right"))), start + BATCH_ROWS)
        yield _examples(pairs.slice(start, stop - start), interactions, catalog, assets)
        start = stop


def _examples(pairs: pa.Table, interactions: pa.Table, catalog: Catalog, assets: Assets) -> pa.Table:
    titles = pairs["title"].combine_chunks()
    candidates, image_uris = _candidates(titles.to_numpy(), catalog, assets)
    columns = {
        "example_id": pairs["example_id"],
        "user_id": pairs["user_id"],
        "title_id": catalog.title_ids.take(titles),
        "title_name": catalog.names.take(titles),
        "title_genres": catalog.genres.take(titles),
        "history": histories(pairs, interactions, catalog),
        "candidates": candidates,
        "label": pairs["label"],
        "propensity": pairs["propensity"],
        "timestamp": pairs["timestamp"],
        "rationale": pa.nulls(pairs.num_rows, pa.string()),
        "image_uris": image_uris,
    }
    fields = [field.with_type(columns[field.name].type) for field in schema.EXAMPLES]
    return pa.table(columns, schema=pa.schema(fields))


def _expand(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """Returns the indices of all ranges one after another, and each range's offset among them."""
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), pa.array(offsets.astype(np.int32))


def histories(pairs: pa.Table, interactions: pa.Table, catalog: Catalog) -> pa.Array:
    """Returns each pair's history as the schema's list, newest last."""
    indices, offsets = _expand(pairs["start"].to_numpy(), pairs["end"].to_numpy())
    times, titles, watched = (
        column.combine_chunks() for column in interactions.take(indices).select(["timestamp", "title", "watch_seconds"])
    )
    fields = [times, catalog.names.take(titles), catalog.genres.take(titles), watched]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(schema.HISTORY.value_type)))


def _candidates(title_p: np.ndarray, catalog: Catalog, assets: Assets) -> tuple[pa.Array, pa.Array]:
    """Returns the columns `candidates` and `image_uris`: one has the contents, the other nulls."""
    # Dictionaries of the batch's own titles, and for each pair the range of its title's artworks in them.
    titles, local = np.unique(title_p, return_inverse=True)
    artworks, offsets = _expand(catalog.offsets[titles], catalog.offsets[titles + 1])
    bounds = offsets.to_numpy()
    indices, lists = _expand(bounds[local], bounds[local + 1])
    keys = pa.array(indices.astype(np.int32))
    artwork_ids, contents = (
        pa.DictionaryArray.from_arrays(keys, values.take(pa.array(artworks)).cast("string"))
        for values in (catalog.artwork_ids, catalog.contents)
    )
    captions, image_uris = contents, pa.nulls(len(title_p), schema.EXAMPLES.field("image_uris").type)
    if assets == "image":
        captions, image_uris = pa.nulls(len(contents), pa.string()), pa.ListArray.from_arrays(lists, contents)
    candidates = pa.StructArray.from_arrays([artwork_ids, captions], names=["artwork_id", "caption"])
    return pa.ListArray.from_arrays(lists, candidates), image_uris


def requests(pairs: pa.Table, interactions: pa.Table, catalog: Catalog) -> pa.Table:
    """Returns one request for each user and time of the pairs: the titles shown then, and the history."""
    title_ids = catalog.title_ids.take(pairs["title"].combine_chunks())
    keys = ["user_id", "timestamp", "start", "end"]
    ranges = pairs.select(keys).append_column("title_id", title_ids)
    asked = ranges.group_by(keys, use_threads=False).aggregate([("title_id", "list")])
    history = histories(asked, interactions, catalog)
    return pa.table({"user_id": asked["user_id"], "history": history, "title_ids": asked["title_id_list"]})
