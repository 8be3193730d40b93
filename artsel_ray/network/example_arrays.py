"""Examples as arrays for the network, with each distinct artwork and item once.

Suffixes: n examples, c candidates of all examples end to end, h history items of all examples end to end,
a distinct artworks, i distinct items (a title's name and genres).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.schema import INVALID_ROWS

# With 20 candidates of 200 tokens some 80 MB of captions.
_BATCH_ROWS = 4_096
_GENRE_SEPARATOR = "\x1f"
_COLUMNS = [
    "user_id", "title_id", "title_name", "title_genres", "history", "candidates", "label", "propensity",
    "timestamp",
]  # fmt: skip
_DAY_MICROSECONDS = 86_400e6

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ExampleArrays:
    """The valid examples of a split, and the distinct artworks and items in them.

    Attributes:
        label_n: index of the engaged artwork among the example's candidates.
        candidates_n: number of candidates; `artwork_c` holds them, one example after another.
        title_n: index of the title's own item.
        history_n: number of history items; `item_h`, `age_days_h` (days before the newest) and `watch_seconds_h` (NaN
            if unknown) hold them, newest last.
        genres: each item's genres in one string; see `split_genres`.
        propensity_n: probability with which the engaged artwork was shown; NaN where there is none in (0, 1].
        without_propensity: number of examples without one, by file.
        invalid: rows left out because an id, a candidate or a valid label is missing, as the table `invalid_rows`.
    """

    user_ids: pa.Array
    title_ids: pa.Array
    label_n: IntArray
    candidates_n: IntArray
    artwork_c: IntArray
    title_n: IntArray
    history_n: IntArray
    item_h: IntArray
    age_days_h: FloatArray
    watch_seconds_h: FloatArray
    artwork_ids: pa.Array
    captions: pa.Array
    names: pa.Array
    genres: pa.Array
    propensity_n: NDArray[np.float64]
    without_propensity: Counter[str]
    invalid: pa.Table

    @property
    def engaged_c(self) -> NDArray[np.bool_]:
        """True at each example's engaged candidate."""
        engaged_c = np.zeros(len(self.artwork_c), bool)
        engaged_c[np.cumsum(self.candidates_n) - self.candidates_n + self.label_n] = True
        return engaged_c


class _Strings:
    """Gives distinct strings a code each, in the order in which they first appear."""

    def __init__(self) -> None:
        self.values = pa.array([], pa.string())

    def codes(self, values: pa.Array) -> IntArray:
        """Returns each string's code; null counts as the empty string."""
        found = pc.fill_null(values, "").dictionary_encode()
        new = found.dictionary.filter(pc.invert(pc.is_in(found.dictionary, value_set=self.values)))
        self.values = pa.concat_arrays([self.values, new])
        return checks.codes(found.dictionary, self.values).astype(np.int64)[found.indices.to_numpy()]


class Codes:
    """Gives distinct pairs of strings a code each: both strings' codes in one integer."""

    def __init__(self) -> None:
        self._left, self._right = _Strings(), _Strings()

    def codes(self, left: pa.Array, right: pa.Array) -> IntArray:
        """Returns each pair's code; null counts as the empty string."""
        return self._left.codes(left) << 32 | self._right.codes(right)

    def strings(self, codes: IntArray) -> tuple[pa.Array, pa.Array]:
        """Returns the strings with these codes."""
        return self._left.values.take(pa.array(codes >> 32)), self._right.values.take(pa.array(codes & 0xFFFFFFFF))


def read_example_arrays(uri: str, limits: RowLimits = DEFAULT_LIMITS) -> ExampleArrays:
    """Reads the examples below `uri`; memory grows with their number, not with the length of captions.

    Raises:
        InputError: if nothing is there, a file is broken or no table of examples, or no row is valid.
    """
    artworks, items = Codes(), Codes()
    parts, invalid, without_propensity = [], [INVALID_ROWS.empty_table()], Counter[str]()
    reader = CheckedReader(storage.list_files(uri), "examples", _COLUMNS, _row_checks, limits=limits)
    for batch in reader.batches(_BATCH_ROWS):
        invalid.append(batch.invalid)
        without_propensity += checks.without_propensity(batch.valid, reader.files)
        if batch.valid.num_rows:
            parts.append(_part(batch.valid, artworks, items))
    if not parts:
        problem = f"no example to use ({sum(map(len, invalid))} invalid rows)"
        raise InputError(f"{uri}: {problem}; prepare larger splits, or check the path")
    user_ids, title_ids = (pa.concat_arrays([part.pop(name) for part in parts]) for name in ("user_ids", "title_ids"))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    artwork_codes, artwork_c = np.unique(arrays.pop("artwork_codes_c"), return_inverse=True)
    title_codes, history_codes = arrays.pop("title_codes_n"), arrays.pop("item_codes_h")
    item_codes, item = np.unique(np.concatenate([title_codes, history_codes]), return_inverse=True)
    artwork_ids, captions = artworks.strings(artwork_codes)
    names, genres = items.strings(item_codes)
    return ExampleArrays(
        user_ids=user_ids, title_ids=title_ids, artwork_c=artwork_c, title_n=item[: len(title_codes)],
        item_h=item[len(title_codes) :], artwork_ids=artwork_ids, captions=captions, names=names, genres=genres,
        without_propensity=without_propensity, invalid=pa.concat_tables(invalid), **arrays,
    )  # fmt: skip


def split_genres(genres: pa.Array) -> pa.Array:
    """Returns the list of genres that each string of `ExampleArrays.genres` holds."""
    return pc.split_pattern(genres, _GENRE_SEPARATOR)


def _row_checks(rows: pa.Table) -> list[checks.RowCheck]:
    candidates = pc.fill_null(pc.list_value_length(rows["candidates"]), 0).to_numpy()
    label = pc.fill_null(rows["label"], -1).to_numpy()
    artwork_ids, owners = checks.items(rows["candidates"], "artwork_id")
    without_id = checks.rows_with(checks.missing(artwork_ids), owners, rows.num_rows)
    return [
        *((c, checks.MISSING, checks.missing(rows[c])) for c in ("user_id", "title_id", "title_name", "timestamp")),
        ("title_genres", checks.NULL_GENRE, checks.null_genre(rows["title_genres"])),
        *checks.history_checks(rows["history"]),
        ("label", "not one of the candidates", (label < 0) | (label >= candidates)),
        ("candidates", "a candidate without an id", without_id),
    ]


def _part(rows: pa.Table, artworks: Codes, items: Codes) -> dict[str, pa.Array | NDArray]:
    """Returns one batch's arrays, with the codes of artworks and items in place of their indices."""
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    candidates, wrong_n = pc.list_flatten(columns["candidates"]), checks.propensity_is_wrong(columns["propensity"])
    return {
        "user_ids": columns["user_id"],
        "title_ids": columns["title_id"],
        "label_n": columns["label"].to_numpy().astype(np.int64),
        "propensity_n": np.where(wrong_n, np.nan, columns["propensity"].to_numpy(zero_copy_only=False)),
        "candidates_n": pc.list_value_length(columns["candidates"]).to_numpy().astype(np.int64),
        "artwork_codes_c": artworks.codes(candidates.field("artwork_id"), candidates.field("caption")),
        "title_codes_n": items.codes(columns["title_name"], joined_genres(columns["title_genres"])),
        **history_arrays(columns["history"], items),
    }


def history_arrays(histories: pa.Array, items: Codes) -> dict[str, NDArray]:
    """Returns `history_n`, `age_days_h` and `watch_seconds_h`, and `item_codes_h` in place of `item_h`."""
    history = pc.list_flatten(histories)
    history_n = pc.fill_null(pc.list_value_length(histories), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    watched_us_h = pc.fill_null(history.field("timestamp").cast(pa.int64()), 0).to_numpy()
    first_n = (np.cumsum(history_n) - history_n)[history_n > 0]
    newest_us_h = np.repeat(np.maximum.reduceat(watched_us_h, first_n), history_n[history_n > 0]) if len(first_n) else 0
    return {
        "history_n": history_n,
        "item_codes_h": items.codes(history.field("title_name"), joined_genres(history.field("genres"))),
        "age_days_h": ((newest_us_h - watched_us_h) / _DAY_MICROSECONDS).astype(np.float32),
        "watch_seconds_h": history.field("watch_seconds").to_numpy(zero_copy_only=False).astype(np.float32),
    }


def joined_genres(genres: pa.Array) -> pa.Array:
    """Returns each list of genres as one string, which `split_genres` splits again."""
    return pc.binary_join(genres, _GENRE_SEPARATOR)
