"""What predictions and the oracle choose for the examples.

Suffixes: n examples, p distinct user-title pairs of the examples, o oracle rows, c candidates end to end.
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
from artsel_ray.evaluate.example_table import UNKNOWN, ExampleTable, codes, read_batches
from artsel_ray.evaluation.metrics import IntArray
from artsel_ray.evaluation.off_policy import FloatArray
from artsel_ray.schema import INVALID_ROWS


@dataclass(frozen=True)
class Choices:
    """The artwork chosen for each example, and what was odd about it.

    Attributes:
        artwork_n: place in the table's artworks; `UNKNOWN` for one that is no candidate, or no prediction.
        probability_n: the prediction's own probability of its choice; NaN where not given.
        missing_n: no prediction for the example's pair.
        unknown_artwork: examples whose prediction is none of the candidates.
        other: predictions for pairs that are not in the examples.
        rejected: rows that are no prediction, as the table `invalid`; without another row their pairs are missing.
        probability_c: the predictions' probability of every candidate; NaN where not given.
        place_c: its 0-based place in the prediction's list, which is the order in which it was shown; NaN likewise.
    """

    artwork_n: IntArray
    probability_n: FloatArray
    missing_n: NDArray[np.bool_]
    unknown_artwork: int
    other: int
    invalid: pa.Table
    probability_c: FloatArray
    place_c: FloatArray

    def hit_n(self, table: ExampleTable) -> FloatArray:
        """Returns 1 where the choice is the engaged artwork, else 0."""
        return (self.artwork_n == table.truth_n).astype(np.float64)

    def policy_c(self, table: ExampleTable) -> FloatArray:
        """Returns 1 for the chosen candidate and 0 for the others, all examples' candidates end to end."""
        return (table.candidate_c == np.repeat(self.artwork_n, table.examples.candidates_n)).astype(np.float64)


def read_choices(uri: str, table: ExampleTable, ranked: bool = False) -> Choices:
    """Reads the predictions below `uri` for the table's examples: a night's own parts, or else every file.

    Args:
        ranked: also read every candidate's probability.

    Raises:
        InputError: if a pair is predicted twice, the night has not finished, a part is absent, or nothing is there.
    """
    pairs, artworks, probabilities, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)], 0
    columns, invalid = ["user_id", "title_id", "artwork_id", "probability"], [INVALID_ROWS.empty_table()]
    candidates = _Candidates(table)
    for file in prediction_files(uri):
        for first_row, found in read_batches(file, "predictions", columns + ["candidates"] * ranked):
            readable, unreadable = checks.split_readable(with_source_rows(found, 0, first_row), "predictions", [file])
            batch, bad = checks.split_valid(readable, "predictions", [file], checks.prediction_checks(readable))
            invalid += [unreadable, bad]
            pair = table.pairs_of(batch)
            known, rows = pair >= 0, rows + batch.num_rows
            pairs.append(pair[known])
            artworks.append(codes(batch["artwork_id"], table.artworks)[known])
            probabilities.append(batch["probability"].to_numpy()[known])
            if ranked:
                candidates.add(pair, batch["candidates"])
    pair = np.concatenate(pairs)
    _refuse_repeated(pair, table, uri)
    artwork_p, probability_p = np.full(len(table.key_p), UNKNOWN), np.full(len(table.key_p), np.nan)
    artwork_p[pair], probability_p[pair] = np.concatenate(artworks), np.concatenate(probabilities)
    missing_n = ~np.isin(np.arange(len(table.key_p)), pair)[table.pair_n]
    artwork_n = artwork_p[table.pair_n]
    candidate_n = table.is_candidate(artwork_n)
    return Choices(
        np.where(candidate_n, artwork_n, UNKNOWN),
        probability_p[table.pair_n],
        missing_n,
        int((~candidate_n & ~missing_n).sum()),
        rows - len(pair),
        pa.concat_tables(invalid),
        *candidates.of_examples(),
    )


class _Candidates:
    """Gathers the lists of predictions' candidates, and finds the examples' candidates in them."""

    def __init__(self, table: ExampleTable):
        self._table = table
        self._keys, self._values = [np.full(1, UNKNOWN)], [np.full((1, 2), np.nan)]

    def add(self, pair: IntArray, lists: pa.ChunkedArray) -> None:
        """Takes the lists of these pairs' candidates; `UNKNOWN` pairs are passed over."""
        artworks, row = checks.items(lists, "artwork_id")
        probabilities, _ = checks.items(lists, "probability")
        place = np.arange(len(row)) - np.searchsorted(row, row)
        artwork, pair = codes(artworks, self._table.artworks), pair[row]
        known = (pair >= 0) & (artwork >= 0)
        self._keys.append((pair * len(self._table.artworks) + artwork)[known])
        self._values.append(np.stack([probabilities.to_numpy(), place], axis=1)[known])

    def of_examples(self) -> tuple[FloatArray, FloatArray]:
        """Returns probability and place of every candidate of the examples; NaN where it is in no list."""
        key, first = np.unique(np.concatenate(self._keys), return_index=True)
        pair_c = np.repeat(self._table.pair_n, self._table.examples.candidates_n)
        wanted_c = pair_c * len(self._table.artworks) + self._table.candidate_c
        found_c = np.searchsorted(key, wanted_c).clip(max=len(key) - 1)
        value_c2 = np.concatenate(self._values)[first[found_c]]
        value_c2[key[found_c] != wanted_c] = np.nan
        return value_c2[:, 0], value_c2[:, 1]


def prediction_files(uri: str) -> list[str]:
    """Lists the files that a finished night's manifest names, or else all of a folder of predictions."""
    manifest, config = storage.read_manifest(uri), storage.join(uri, "config.json")
    if manifest is None and storage.exists(config) and {"run", "decoding"} & set(storage.read_json(config)):
        raise InputError(f"{uri}: the night is not finished (no {storage.MANIFEST}); run the same jobs/score.py again")
    if manifest is None or "parts" not in manifest:
        return storage.list_files(uri)
    files = [storage.join(uri, name) for name in manifest["parts"]]
    if absent := set(files) - set(storage.find_files(uri)):
        raise InputError(
            f"{uri}: {len(absent)} of the {len(files)} files in {storage.MANIFEST} are not there, such as "
            f"{min(absent)}; copy the whole folder, or score again into another --output"
        )
    return files


def _refuse_repeated(pair: IntArray, table: ExampleTable, source: str) -> None:
    count_p = np.bincount(pair, minlength=len(table.key_p))
    repeated = np.flatnonzero(count_p > 1)
    if len(repeated):
        first = table.pair_ids(repeated[0])
        raise InputError(f"{source}: {len(repeated)} pairs stand more than once, such as {first}; keep one row of each")


def count_invalid(uri: str) -> int:
    """Returns the number of rows that the night rejected, from the files' footers."""
    return sum(
        storage.open_parquet(file).metadata.num_rows for file in storage.find_files(storage.join(uri, "rejected"))
    )


@dataclass(frozen=True)
class Oracle:
    """The best policy of a simulated world on each example.

    With π0 the logging policy and p the engagement probability, an engaged artwork is a with
    `q(a) ∝ π0(a) · p(a)`. The choice is `argmax q`, the best for accuracy and, m being one number per example,
    for IPS with uniform π (the best for IPS with the logged propensity would be `argmax p`).

    Attributes:
        choices: argmax q; the first of equals.
        best_n: max q, the probability that this choice is right; 0 where the oracle lacks the pair.
    """

    choices: Choices
    best_n: FloatArray


def read_oracle(uri: str, table: ExampleTable) -> Oracle:
    """Reads the oracle's rows for the table's examples.

    Raises:
        InputError: if a row's lists differ in length or hold no positive, finite probability, or a pair stands twice.
    """
    columns = ["user_id", "title_id", "artwork_ids", "engagement_probabilities", "propensities"]
    pairs, artworks, bests, other = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)], 0
    for file in storage.list_files(uri):
        for _, batch in read_batches(file, "oracle", columns):
            pair = table.pairs_of(batch)
            other += int((pair < 0).sum())
            if (pair >= 0).any():
                artwork_o, best_o = _best(batch.filter(pa.array(pair >= 0)), table, file)
                pairs.append(pair[pair >= 0])
                artworks.append(artwork_o)
                bests.append(best_o)
    pair = np.concatenate(pairs)
    _refuse_repeated(pair, table, uri)
    artwork_p, best_p = np.full(len(table.key_p), UNKNOWN), np.zeros(len(table.key_p))
    artwork_p[pair], best_p[pair] = np.concatenate(artworks), np.concatenate(bests)
    artwork_n, best_n = artwork_p[table.pair_n], best_p[table.pair_n]
    candidate_n, missing_n = table.is_candidate(artwork_n), best_n == 0
    artwork_n = np.where(candidate_n, artwork_n, UNKNOWN)
    unknown_artwork = int((~candidate_n & ~missing_n).sum())
    none_c = np.full(len(table.candidate_c), np.nan)
    choices = Choices(artwork_n, best_n, missing_n, unknown_artwork, other, INVALID_ROWS.empty_table(), none_c, none_c)
    return Oracle(choices, best_n)


def _best(rows: pa.Table, table: ExampleTable, source: str) -> tuple[IntArray, FloatArray]:
    """Returns argmax q and max q of each row of the oracle."""
    lists = [rows[column].combine_chunks() for column in rows.column_names[2:]]
    size_o, *other_sizes = [pc.fill_null(pc.list_value_length(values), 0).to_numpy() for values in lists]
    if (size_o == 0).any() or any((sizes != size_o).any() for sizes in other_sizes):
        raise InputError(
            f"{source}: an oracle row's three lists are empty or differ in length; simulate the world again"
        )
    artwork_c = codes(pa.chunked_array([pc.list_flatten(lists[0])]), table.artworks)
    joint_c = np.prod([pc.list_flatten(values).to_numpy(zero_copy_only=False) for values in lists[1:]], axis=0)
    start_o = np.cumsum(size_o) - size_o
    total_o = np.add.reduceat(joint_c, start_o)
    if not (np.isfinite(total_o) & (total_o > 0)).all() or (joint_c < 0).any():
        raise InputError(f"{source}: an oracle row's probabilities are not positive numbers; simulate the world again")
    best_o = np.maximum.reduceat(joint_c, start_o)
    place_c = np.where(joint_c == np.repeat(best_o, size_o), np.arange(len(joint_c)), len(joint_c))
    return artwork_c[np.minimum.reduceat(place_c, start_o)], best_o / total_o
