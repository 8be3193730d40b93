"""Examples as arrays for the baseline's network: what stands in many examples is held once.

Suffixes: n examples, c candidates of all examples end to end, h history items of all examples end to end,
a distinct artworks, i distinct items (a title's name and genres).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.data import checks
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.errors import InputError
from artsel_ray.schema import INVALID_ROWS

# Rows read at a time: with 20 candidates of 200 tokens some 80 MB of captions.
_BATCH_ROWS = 4_096
_GENRE_MARK = "\x1f"
_COLUMNS = ["user_id", "title_id", "title_name", "title_genres", "history", "candidates", "label", "timestamp"]
_DAY_SECONDS = 86_400.0

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ExampleArrays:
    """The usable examples of a split, with the distinct artworks and items that they speak of.

    Attributes:
        label_n: place of the engaged artwork among the example's candidates.
        size_n: number of candidates; `artwork_c` holds the example's candidates, one after another.
        title_n: the title's own item.
        length_n: number of history items; `item_h`, `age_days_h`, `watch_seconds_h` (NaN: not known) hold them,
            newest last.
        rejected: rows left out because an id, a candidate or a valid label is missing, as the table `invalid`.
    """

    user_ids: pa.Array
    title_ids: pa.Array
    label_n: IntArray
    size_n: IntArray
    artwork_c: IntArray
    title_n: IntArray
    length_n: IntArray
    item_h: IntArray
    age_days_h: FloatArray
    watch_seconds_h: FloatArray
    artwork_ids: pa.Array
    captions: pa.Array
    names: pa.Array
    genres: pa.Array
    invalid: pa.Table

    @property
    def engaged_c(self) -> NDArray[np.bool_]:
        """True at each example's engaged candidate."""
        engaged_c = np.zeros(len(self.artwork_c), bool)
        engaged_c[np.cumsum(self.size_n) - self.size_n + self.label_n] = True
        return engaged_c


class _Distinct:
    """Numbers distinct strings in the order in which they first appear."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.string())

    def codes(self, values: pa.Array) -> IntArray:
        """Returns each string's number; null counts as the empty string."""
        found = pc.fill_null(values, "").dictionary_encode()
        new = found.dictionary.filter(pc.invert(pc.is_in(found.dictionary, value_set=self.values)))
        self.values = pa.concat_arrays([self.values, new])
        place = pc.index_in(found.dictionary, value_set=self.values).to_numpy().astype(np.int64)
        return place[found.indices.to_numpy()]


class _Pairs:
    """Numbers distinct pairs of strings; the pairs' parts come out once all are known."""

    def __init__(self) -> None:
        self.left, self.right = _Distinct(), _Distinct()
        self.keys: list[IntArray] = [np.zeros(0, np.int64)]

    def add(self, left: pa.Array, right: pa.Array) -> None:
        self.keys.append(self.left.codes(left) << 32 | self.right.codes(right))

    def finish(self) -> tuple[pa.Array, pa.Array, IntArray]:
        """Returns the distinct pairs' left and right strings, and each added pair's number."""
        key, number = np.unique(np.concatenate(self.keys), return_inverse=True)
        return self.left.values.take(pa.array(key >> 32)), self.right.values.take(pa.array(key & 0xFFFFFFFF)), number


def read_example_arrays(uri: str) -> ExampleArrays:
    """Reads the examples below `uri`; memory grows with their number, not with the length of captions.

    Raises:
        InputError: if nothing is there, a file is broken or no table of examples, or no row can be used.
    """
    artworks, items = _Pairs(), _Pairs()
    parts: list[dict[str, pa.Array | NDArray]] = []
    invalid = [INVALID_ROWS.empty_table()]
    for file in storage.list_files(uri):
        for first_row, batch in storage.iter_batches(file, "examples", _COLUMNS, _BATCH_ROWS, broken_text=True):
            readable, unreadable = checks.split_readable(with_source_rows(batch, 0, first_row), "examples", [file])
            good, bad = checks.split_valid(readable, "examples", [file], _row_checks(readable))
            invalid += [unreadable, bad]
            if good.num_rows:
                parts.append(_part(good.combine_chunks(), artworks, items))
    if not parts:
        bad_rows = sum(map(len, invalid))
        raise InputError(
            f"{uri}: no example to use ({bad_rows} rows rejected); prepare larger splits, or check the path"
        )
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    artwork_ids, captions, artwork_c = artworks.finish()
    names, genres, item = items.finish()
    # Each part numbered its histories first and its titles after them.
    of_title = np.concatenate([np.repeat([False, True], part["sizes"]) for part in parts])
    strings = {name: pa.concat_arrays(columns.pop(name)) for name in ("user_ids", "title_ids")}
    arrays = {name: np.concatenate(values) for name, values in columns.items() if name != "sizes"}
    return ExampleArrays(
        **strings,
        **arrays,
        artwork_c=artwork_c,
        title_n=item[of_title],
        item_h=item[~of_title],
        **{"artwork_ids": artwork_ids, "captions": captions, "names": names, "genres": genres},
        invalid=pa.concat_tables(invalid),
    )


def _row_checks(batch: pa.Table) -> list[checks.RowCheck]:
    """Finds the rows that lack an id, a name, a time, or an engaged artwork among candidates with ids, and so on."""
    size = pc.fill_null(pc.list_value_length(batch["candidates"]), 0).to_numpy()
    label = pc.fill_null(batch["label"], -1).to_numpy()
    artwork_ids, owners = checks.items(batch["candidates"], "artwork_id")
    return [
        *((c, checks.MISSING, checks.missing(batch[c])) for c in ("user_id", "title_id", "title_name", "timestamp")),
        ("title_genres", checks.NULL_GENRE, checks.null_genre(batch["title_genres"])),
        *checks.history_checks(batch["history"]),
        ("label", "not one of the candidates", (label < 0) | (label >= size)),
        (
            "candidates",
            "a candidate without an id",
            checks.rows_with(checks.missing(artwork_ids), owners, batch.num_rows),
        ),
    ]


def _part(batch: pa.Table, artworks: _Pairs, items: _Pairs) -> dict[str, pa.Array | NDArray]:
    columns = {name: batch[name].combine_chunks() for name in batch.column_names}
    candidates = pc.list_flatten(columns["candidates"])
    artworks.add(candidates.field("artwork_id"), candidates.field("caption"))
    history = pc.list_flatten(columns["history"])
    length_n = pc.fill_null(pc.list_value_length(columns["history"]), 0).to_numpy().astype(np.int64)
    for names, genres in (
        (history.field("title_name"), history.field("genres")),
        (columns["title_name"], columns["title_genres"]),
    ):
        items.add(names, pc.binary_join(genres, _GENRE_MARK))
    seen_us_h = pc.fill_null(history.field("timestamp").cast(pa.int64()), 0).to_numpy()
    shown_us_h = np.repeat(columns["timestamp"].cast(pa.int64()).to_numpy(), length_n)
    age_days_h = np.maximum(shown_us_h - seen_us_h, 0) / (1e6 * _DAY_SECONDS)
    watch_seconds_h = history.field("watch_seconds").to_numpy(zero_copy_only=False)
    return {
        "user_ids": columns["user_id"],
        "title_ids": columns["title_id"],
        "label_n": columns["label"].to_numpy().astype(np.int64),
        "size_n": pc.list_value_length(columns["candidates"]).to_numpy().astype(np.int64),
        "length_n": length_n,
        "age_days_h": age_days_h.astype(np.float32),
        "watch_seconds_h": watch_seconds_h.astype(np.float32),
        "sizes": np.array([len(history), len(batch)]),
    }
