"""Examples as arrays, which number users, titles and artworks; the tables joined to them share this numbering.

Suffixes: n examples, c candidates of all examples end to end, p distinct user-title pairs of the examples.
Of captions only digests are kept, to know which candidates read the same; histories are never read.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.evaluation.examples import UNKNOWN, Examples, FloatArray, IntArray, told_apart
from artsel_ray.prompts.escaping import escape

# With 20 candidates of 200 tokens some 160 MB of captions.
_BATCH_ROWS = 8_192
_COLUMNS = ["user_id", "title_id", "candidates.artwork_id", "label"]


@dataclass(frozen=True)
class ExampleTable:
    """Examples as arrays. Users, titles and artworks are numbered by their index in `users`, `titles`, `artworks`."""

    examples: Examples
    users: pa.Array
    titles: pa.Array
    artworks: pa.Array
    text_a: IntArray
    """Number of each artwork's text: artworks with the same caption have the same one."""
    title_n: IntArray
    candidate_c: IntArray
    pair_n: IntArray
    """Each example's user-title pair, an index into `key_p`."""
    key_p: IntArray
    """Sorted keys of the pairs, `user · titles + title`."""
    invalid: pa.Table
    """Rows that cannot be evaluated, as the table `invalid_rows`."""
    invalid_propensities: int
    """Number of propensities outside (0, 1]; they count as not known."""

    @property
    def truth_n(self) -> IntArray:
        """The engaged artwork of each example."""
        return self.candidate_c[self.examples.start_n + self.examples.position_n]

    @property
    def texts(self) -> pa.Table:
        """The artworks' texts, as `number_ids` takes them for another table."""
        return pa.table({"artwork_id": self.artworks, "caption": self.text_a})

    def texts_of(self, artwork: IntArray, sizes: IntArray) -> IntArray:
        """Returns the texts of lists of artworks, given end to end; see `told_apart`."""
        own = len(self.artworks) + int(self.text_a.max()) + np.arange(len(artwork))
        return told_apart(np.where(artwork == UNKNOWN, own, self.text_a[artwork]), sizes)

    def pairs_of(self, rows: pa.Table) -> IntArray:
        """Returns the pair of each row by its user_id and title_id; `UNKNOWN` for one that is not in the examples."""
        user, title = codes(rows["user_id"], self.users), codes(rows["title_id"], self.titles)
        return find(np.where((user < 0) | (title < 0), UNKNOWN, user * len(self.titles) + title), self.key_p)

    def artwork_keys(self, owner_n: IntArray) -> IntArray:
        """Returns a key of owner and artwork for every candidate, given each example's owner, such as its title."""
        return np.repeat(owner_n, self.examples.candidates_n) * len(self.artworks) + self.candidate_c

    def join_candidates(self, pair: IntArray, artwork: IntArray, values: FloatArray) -> FloatArray:
        """Returns the values, `[rows, columns]`, of every candidate's pair and artwork; NaN where there is none."""
        is_known = (pair >= 0) & (artwork >= 0)
        # The first key is `UNKNOWN`, without a value.
        keys = np.concatenate([[UNKNOWN], (pair * len(self.artworks) + artwork)[is_known]])
        known = np.concatenate([np.full((1, values.shape[1]), np.nan), values[is_known]])
        key, first = np.unique(keys, return_index=True)
        index_c = find(self.artwork_keys(self.pair_n), key)
        return known[first[np.where(index_c == UNKNOWN, 0, index_c)]]

    def pair_ids(self, pair: int) -> str:
        """Returns a pair's ids, for a message."""
        user, title = divmod(int(self.key_p[pair]), len(self.titles))
        return f"user_id {self.users[user].as_py()!r}, title_id {self.titles[title].as_py()!r}"

    def is_candidate(self, artwork_n: IntArray) -> NDArray[np.bool_]:
        """Returns whether each example has that artwork among its candidates."""
        same_c = self.candidate_c == np.repeat(artwork_n, self.examples.candidates_n)
        return np.logical_or.reduceat(same_c, self.examples.start_n)


def codes(ids: pa.ChunkedArray, vocabulary: pa.Array) -> IntArray:
    """Returns each id's index in the vocabulary, `UNKNOWN` for null and for an id that is not there."""
    return checks.codes(ids, vocabulary).astype(np.int64)


def find(wanted: IntArray, keys: IntArray) -> IntArray:
    """Returns each wanted key's index among the sorted, distinct keys, one or more; `UNKNOWN` where it is absent."""
    index = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[index] == wanted, index, UNKNOWN)


def read_examples(uri: str, limits: RowLimits = DEFAULT_LIMITS) -> ExampleTable:
    """Reads the examples that can be evaluated, and counts the propensities that cannot be used.

    Captions count as the same that are so as far as the limits go.

    Raises:
        InputError: if there is no example that can be evaluated, or an example_id occurs twice.
    """
    files = storage.list_files(uri)
    batch = CheckedReader(files, "examples", ["example_id", *_COLUMNS, "propensity"], _example_checks).all()
    if not batch.valid.num_rows:
        invalid = f"{batch.invalid.num_rows} rows are invalid"
        raise InputError(f"{uri}: no example to evaluate ({invalid}); give held-out examples")
    counts = pc.value_counts(batch.valid["example_id"].drop_null()).flatten()
    repeated = counts[0].filter(pc.greater(counts[1], 1))
    if len(repeated):
        several = f"{len(repeated)} example_ids occur more than once, such as {repeated[0].as_py()!r}"
        raise InputError(f"{uri}: {several}; keep one row of each")
    invalid = batch.invalid.sort_by([("file", "ascending"), ("row", "ascending")])
    return number_ids(batch.valid, invalid, _read_texts(files, limits))


def _read_texts(files: list[str], limits: RowLimits) -> pa.Table:
    """Returns artwork_id and a digest `caption` of all candidates that are shown by their captions, each once."""
    found = [pa.table({name: pa.array([], pa.string()) for name in ("artwork_id", "caption")})]
    captioned = [file for file in files if _has_captions(file)]
    for batch in CheckedReader(captioned, "examples", ["candidates", "image_uris"], limits=limits).batches(_BATCH_ROWS):
        # Rows as read: a caption that is not UTF-8 is no reason to leave an example out.
        lists = batch.read["candidates"].combine_chunks()
        is_text = pc.is_null(batch.read["image_uris"].combine_chunks()).take(pc.list_parent_indices(lists))
        values = pc.list_flatten(lists).filter(is_text)
        captions = pc.struct_field(values, "caption").cast(pa.binary()).dictionary_encode()
        texts = (text.decode(errors="replace") for text in captions.dictionary.to_pylist())
        # As prompts show them.
        digests = [blake2b(escape(text).encode(), digest_size=16).hexdigest() for text in texts]
        columns = {"artwork_id": pc.struct_field(values, "artwork_id").cast(pa.binary())}
        columns["caption"] = pa.array(digests, pa.string()).take(captions.indices)
        distinct = pa.table(columns).group_by(["artwork_id", "caption"]).aggregate([])
        found.append(distinct.set_column(0, "artwork_id", distinct["artwork_id"].cast(pa.string(), safe=False)))
    return pa.concat_tables(found)


def _has_captions(file: str) -> bool:
    """Returns whether candidates have more than their ids, which is all that an evaluation needs."""
    columns = storage.open_parquet(file).schema
    return any(columns.column(index).path.endswith(".caption") for index in range(len(columns)))


def _example_checks(rows: pa.Table) -> list[checks.RowCheck]:
    size_n, label_n = list_lengths(rows["candidates"]), _labels(rows)
    artworks, owners = checks.items(rows["candidates"], "artwork_id")
    has_null = checks.rows_with(checks.mask(artworks.is_null()), owners, rows.num_rows)
    return [
        ("user_id", checks.MISSING, checks.missing(rows["user_id"])),
        ("title_id", checks.MISSING, checks.missing(rows["title_id"])),
        ("candidates", "no candidate", size_n == 0),
        ("candidates", "a candidate without an id", has_null),
        ("label", "not one of the candidates", (label_n < 0) | (label_n >= size_n)),
    ]


def list_lengths(lists: pa.ChunkedArray) -> IntArray:
    """Returns the number of items of each list, 0 for null."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def _labels(rows: pa.Table) -> IntArray:
    return pc.fill_null(rows["label"], UNKNOWN).to_numpy().astype(np.int64)


def _candidate_ids(rows: pa.Table) -> pa.ChunkedArray:
    """Returns the ids of all rows' candidates end to end, in chunks: together they may exceed Arrow's 2 GiB."""
    return pc.struct_field(pc.list_flatten(rows["candidates"]), "artwork_id")


def number_ids(rows: pa.Table, invalid: pa.Table, texts: pa.Table | None = None) -> ExampleTable:
    """Returns valid rows with user_id, title_id, candidates, label and propensity as arrays.

    Args:
        texts: artwork_id and `caption`, any value that is the same for artworks that read the same.
    """
    users, user_n = _number(rows["user_id"])
    titles, title_n = _number(rows["title_id"])
    artworks, candidate_c = _number(_candidate_ids(rows))
    text_a = np.arange(len(artworks)) if texts is None else _number_texts(artworks, texts)
    size_n = list_lengths(rows["candidates"])
    key_p, pair_n = np.unique(user_n * len(titles) + title_n, return_inverse=True)
    propensity_n = rows["propensity"].to_numpy()
    is_usable_n = (propensity_n > 0) & (propensity_n <= 1)
    return ExampleTable(
        examples=Examples(
            user_n=user_n,
            position_n=_labels(rows),
            candidates_n=size_n,
            propensity_n=np.where(is_usable_n, propensity_n, np.nan),
            text_c=None if texts is None else told_apart(text_a[candidate_c], size_n),
        ),
        users=users,
        titles=titles,
        artworks=artworks,
        text_a=text_a,
        title_n=title_n,
        candidate_c=candidate_c,
        pair_n=pair_n,
        key_p=key_p,
        invalid=invalid,
        invalid_propensities=int((~is_usable_n & ~np.isnan(propensity_n)).sum()),
    )


def _number(ids: pa.ChunkedArray) -> tuple[pa.Array, IntArray]:
    """Returns the sorted distinct ids, and each id's index among them, which depends on no order of rows."""
    distinct = pc.unique(ids).sort()
    return distinct, codes(ids, distinct)


def _number_texts(artworks: pa.Array, texts: pa.Table) -> IntArray:
    """Returns a number for each artwork, the same for those with the same digest; one of its own without a digest."""
    known = texts.drop_null()
    artwork, text = codes(known["artwork_id"], artworks), codes(known["caption"], pc.unique(known["caption"]))
    text_a = len(known) + np.arange(len(artworks))
    text_a[artwork[artwork != UNKNOWN]] = text[artwork != UNKNOWN]
    return text_a


@dataclass(frozen=True)
class TrainExamples:
    """What the train examples say about the table's examples."""

    engagements_c: IntArray
    """Number of train examples that engage with each candidate."""
    is_new_n: NDArray[np.bool_]
    """Whether no train example has the example's title."""


def read_train(uri: str, table: ExampleTable) -> TrainExamples:
    """Reads the train examples at `uri`, of which no more than counts are kept."""
    keys, is_known_t = [np.full(1, UNKNOWN)], np.zeros(len(table.titles), dtype=bool)
    for batch in CheckedReader(storage.list_files(uri), "examples", _COLUMNS, _example_checks).batches():
        rows = batch.valid
        size_n = list_lengths(rows["candidates"])
        engaged = _candidate_ids(rows).take(pa.array(np.cumsum(size_n) - size_n + _labels(rows)))
        title_n, artwork_n = codes(rows["title_id"], table.titles), codes(engaged, table.artworks)
        is_known_t[title_n[title_n >= 0]] = True
        keys.append((title_n * len(table.artworks) + artwork_n)[(title_n >= 0) & (artwork_n >= 0)])
    key, count = np.unique(np.concatenate(keys), return_counts=True)
    index_c = find(table.artwork_keys(table.title_n), key)
    return TrainExamples(np.where(index_c == UNKNOWN, 0, count[index_c]), ~is_known_t[table.title_n])
