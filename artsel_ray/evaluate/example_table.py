"""Examples read from Parquet into arrays; what is joined to them shares their numbering of ids.

Suffixes: n examples, c candidates of all examples end to end, p distinct user-title pairs of the examples.
Captions and histories are never read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import schema, storage
from artsel_ray.data import checks
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.errors import InputError
from artsel_ray.evaluation.metrics import Examples, IntArray

BATCH_ROWS = 131_072
UNKNOWN = -1
_CANDIDATE_IDS = pa.list_(pa.struct([pa.field("artwork_id", pa.string())]))


@dataclass(frozen=True)
class ExampleTable:
    """The examples as arrays; ids are numbered by their place in `users`, `titles` and `artworks`.

    Attributes:
        pair_n: each example's user-title pair, its place in `key_p`, the sorted `user · titles + title`.
        rejected: rows that cannot be evaluated, as the table `invalid`.
    """

    examples: Examples
    users: pa.Array
    titles: pa.Array
    artworks: pa.Array
    title_n: IntArray
    candidate_c: IntArray
    start_n: IntArray
    pair_n: IntArray
    key_p: IntArray
    invalid: pa.Table
    invalid_propensities: int

    @property
    def truth_n(self) -> IntArray:
        """The engaged artwork of each example."""
        return self.candidate_c[self.start_n + self.examples.position_n]

    def pairs_of(self, table: pa.Table) -> IntArray:
        """Returns the pair of each row by its user_id and title_id; `UNKNOWN` for one that is not in the examples."""
        user, title = codes(table["user_id"], self.users), codes(table["title_id"], self.titles)
        key = np.where((user < 0) | (title < 0), UNKNOWN, user * len(self.titles) + title)
        pair = np.searchsorted(self.key_p, key).clip(max=len(self.key_p) - 1)
        return np.where(self.key_p[pair] == key, pair, UNKNOWN)

    def pair_ids(self, pair: int) -> str:
        """Names a pair in a message."""
        user, title = divmod(int(self.key_p[pair]), len(self.titles))
        return f"user_id {self.users[user].as_py()!r}, title_id {self.titles[title].as_py()!r}"

    def is_candidate(self, artwork_n: IntArray) -> NDArray[np.bool_]:
        """Tells whether each example's title has that artwork among the example's candidates."""
        same_c = self.candidate_c == np.repeat(artwork_n, self.examples.candidates_n)
        return np.logical_or.reduceat(same_c, self.start_n)


def codes(ids: pa.ChunkedArray, vocabulary: pa.Array) -> IntArray:
    """Returns each id's place in the vocabulary, `UNKNOWN` for null and for what is not there."""
    found = pc.fill_null(pc.index_in(ids, value_set=vocabulary), UNKNOWN)
    return found.to_numpy().astype(np.int64)


def read_batches(uri: str, name: str, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yields `(number of the first row, table)` of one file with these columns; of candidates only the artworks' ids.

    Raises:
        InputError: if the file is broken or lacks a column that may not be null.
    """
    file = storage.open_parquet(uri)
    schema.conform(file.schema_arrow, name, uri, columns)
    paths = (file.schema.column(i).path for i in range(len(file.schema)))
    leaves = [path for path in paths if path.split(".")[0] in columns and not path.endswith(".caption")]
    first_row = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=leaves):
            yield first_row, _cast(pa.Table.from_batches([batch]), name, columns)
            first_row += batch.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {uri} as Parquet: {str(error).splitlines()[0]}") from None


def _cast(table: pa.Table, name: str, columns: list[str]) -> pa.Table:
    """Gives the columns their types, candidates without captions, and absent ones nulls."""
    arrays = {}
    for column in columns:
        ids_only = (name, column) == ("examples", "candidates")
        type_ = _CANDIDATE_IDS if ids_only else schema.TABLES[name].field(column).type
        if column not in table.column_names:
            arrays[column] = pa.chunked_array([pa.nulls(table.num_rows, type_)])
        else:
            arrays[column] = table[column].cast(type_)
    return pa.table(arrays)


@dataclass(frozen=True)
class _Rows:
    """One batch of examples without its faulty rows; `artwork_c` end to end."""

    table: pa.Table
    label_n: IntArray
    candidates_n: IntArray
    artwork_c: pa.Array
    invalid: pa.Table


def _artworks(table: pa.Table) -> tuple[IntArray, pa.Array]:
    lists = table["candidates"].combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return sizes, pc.struct_field(pc.list_flatten(lists), "artwork_id")


def _clean(uri: str, first_row: int, table: pa.Table) -> _Rows:
    """Takes out the rows that cannot be evaluated, with the column and reason of each."""
    table, unreadable = checks.split_readable(with_source_rows(table, 0, first_row), "examples", [uri])
    size_n, artwork_c = _artworks(table)
    label_n = pc.fill_null(table["label"], UNKNOWN).to_numpy().astype(np.int64)
    owner_c = np.repeat(np.arange(len(size_n)), size_n)
    nameless_n = checks.rows_with(checks.mask(artwork_c.is_null()), owner_c, len(size_n))
    found: list[checks.RowCheck] = [
        ("user_id", checks.MISSING, checks.missing(table["user_id"])),
        ("title_id", checks.MISSING, checks.missing(table["title_id"])),
        ("candidates", "no candidate", size_n == 0),
        ("candidates", "a candidate without an id", nameless_n),
        ("label", "not one of the candidates", (label_n < 0) | (label_n >= size_n)),
    ]
    good, bad = checks.split_valid(table, "examples", [uri], found)
    good_n = np.isin(table["row"].to_numpy(), good["row"].to_numpy())
    invalid = pa.concat_tables([unreadable, bad]).sort_by("row")
    return _Rows(good, label_n[good_n], size_n[good_n], artwork_c.filter(pa.array(good_n[owner_c])), invalid)


def read_examples(uri: str) -> ExampleTable:
    """Reads the examples that can be evaluated, and counts the propensities that cannot be used.

    A propensity is usable in (0, 1]; null or NaN means not known; anything else is invalid and counts as not known.

    Raises:
        InputError: if there is no example that can be evaluated, or an example_id stands twice.
    """
    columns = ["example_id", "user_id", "title_id", "candidates", "label", "propensity"]
    files = storage.list_files(uri)
    parts = [_clean(file, row, table) for file in files for row, table in read_batches(file, "examples", columns)]
    invalid = pa.concat_tables([part.invalid for part in parts] or [schema.INVALID_ROWS.empty_table()])
    if not sum(len(part.label_n) for part in parts):
        raise InputError(f"{uri}: no example to evaluate ({invalid.num_rows} rows rejected); give held-out examples")
    table = pa.concat_tables([part.table.drop_columns(["candidates", "file", "row"]) for part in parts])
    _refuse_repeated(table["example_id"], uri)
    label_n, size_n = (np.concatenate([getattr(part, name) for part in parts]) for name in ("label_n", "candidates_n"))
    return number_ids(table, label_n, size_n, pa.chunked_array([part.artwork_c for part in parts]), invalid)


def number_ids(
    table: pa.Table, label_n: IntArray, size_n: IntArray, artwork_c: pa.ChunkedArray, invalid: pa.Table
) -> ExampleTable:
    """Makes the arrays of rows with user_id, title_id and propensity, given their candidates end to end."""
    users, user_n = _number(table["user_id"])
    titles, title_n = _number(table["title_id"])
    artworks, candidate_c = _number(artwork_c)
    key_p, pair_n = np.unique(user_n * len(titles) + title_n, return_inverse=True)
    propensity_n = table["propensity"].to_numpy()
    usable_n = (propensity_n > 0) & (propensity_n <= 1)
    return ExampleTable(
        Examples(user_n, label_n, size_n, np.where(usable_n, propensity_n, np.nan)),
        *(users, titles, artworks, title_n, candidate_c),
        np.concatenate([[0], np.cumsum(size_n)[:-1]]),
        *(pair_n, key_p, invalid),
        int((~usable_n & ~np.isnan(propensity_n)).sum()),
    )


def _refuse_repeated(ids: pa.ChunkedArray, uri: str) -> None:
    counts = pc.value_counts(ids.drop_null()).flatten()
    repeated = counts[0].filter(pc.greater(counts[1], 1))
    if len(repeated):
        raise InputError(
            f"{uri}: {len(repeated)} example_ids stand more than once, such as {repeated[0].as_py()!r}; "
            "each example must be there once"
        )


def _number(ids: pa.ChunkedArray) -> tuple[pa.Array, IntArray]:
    """Returns the sorted distinct ids, and each id's place among them, which so depends on no order of rows."""
    encoded = pc.dictionary_encode(pc.cast(ids, pa.string())).combine_chunks()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), place[encoded.indices.to_numpy()]


def engagements(uri: str, table: ExampleTable) -> IntArray:
    """Counts for every candidate of the table's examples how often it is engaged with at `uri`."""
    keys = []
    for file in storage.list_files(uri):
        for row, batch in read_batches(file, "examples", ["user_id", "title_id", "candidates", "label"]):
            part = _clean(file, row, batch)
            start_n = np.cumsum(part.candidates_n) - part.candidates_n
            title_n = codes(part.table["title_id"], table.titles)
            artwork_n = codes(pa.chunked_array([part.artwork_c.take(pa.array(start_n + part.label_n))]), table.artworks)
            keys.append((title_n * len(table.artworks) + artwork_n)[(title_n >= 0) & (artwork_n >= 0)])
    key, count = np.unique(np.concatenate([[UNKNOWN], *keys]), return_counts=True)
    title_c = np.repeat(table.title_n, table.examples.candidates_n)
    wanted_c = title_c * len(table.artworks) + table.candidate_c
    place_c = np.searchsorted(key, wanted_c).clip(max=len(key) - 1)
    return np.where(key[place_c] == wanted_c, count[place_c], 0)
