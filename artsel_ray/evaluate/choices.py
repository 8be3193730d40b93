"""The choices of predictions and of the oracle, joined to the examples.

Suffixes: n examples, p distinct user-title pairs of the examples, o oracle rows, c candidates end to end.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.evaluate.example_table import ExampleTable, codes, list_lengths
from artsel_ray.evaluate.exploration import ExploredRows, explores
from artsel_ray.evaluation.examples import UNKNOWN, FloatArray, IntArray
from artsel_ray.runtime.run import prediction_files
from artsel_ray.runtime.shards import INVALID_FOLDER
from artsel_ray.schema import INVALID_ROWS


@dataclass(frozen=True)
class PredictedChoices:
    """The artwork chosen for each example, and counts of the predictions that could not be used as they are."""

    artwork_n: IntArray
    """`UNKNOWN` for an artwork that is no candidate, or without a prediction."""
    probability_n: FloatArray
    """The prediction's own probability of its choice; NaN where it gives none."""
    missing_n: NDArray[np.bool_]
    """Whether the example's pair has no prediction."""
    unknown_artwork: int
    """Number of examples whose prediction is none of the candidates."""
    other: int
    """Number of predictions for pairs that are not in the examples."""
    invalid: pa.Table
    """Rows that are no prediction, as the table `invalid_rows`; their pairs are missing."""
    probability_c: FloatArray
    """The predictions' probability of every candidate; NaN where they give none."""
    shown_position_c: FloatArray
    """0-based position of every candidate in the prediction's list, the order in which it was shown; NaN likewise."""
    explored: bool = False
    """Whether predictions have a propensity: `artwork_n` is then their most likely candidate, not the drawn one."""
    served_c: FloatArray | None = None
    """The policy as served, if the run explored and its propensities are those of `--explore epsilon` or `softmax`."""

    def hit_n(self, table: ExampleTable) -> FloatArray:
        """Returns 1 where the choice is the engaged artwork or reads the same, else 0."""
        return table.examples.mass_of(self.policy_c(table))

    def policy_c(self, table: ExampleTable) -> FloatArray:
        """Returns 1 for the chosen candidate and 0 for the others, all examples' candidates end to end."""
        return (table.candidate_c == np.repeat(self.artwork_n, table.examples.candidates_n)).astype(np.float64)


def read_choices(uri: str, table: ExampleTable, ranked: bool = False) -> PredictedChoices:
    """Reads the predictions below `uri` for the table's examples: the parts of a finished run, or else every file.

    Where a prediction has a propensity, the choice is its most likely candidate: the artwork that was drawn is not what
    the model would choose. If `ranked`, also reads every candidate's probability and position.

    Raises:
        InputError: if a pair is predicted twice, the run has not finished, a part is absent, nothing is there, or a
            prediction has a propensity and no candidates.
    """
    files = prediction_files(uri)
    has_lists = ranked or explores(files)
    columns = ["user_id", "title_id", "artwork_id", "probability", "propensity"] + ["candidates"] * has_lists
    chosen, candidates, invalid = _ChosenArtworks(table), _RankedCandidates(table), [INVALID_ROWS.empty_table()]
    explored = ExploredRows(uri, table)
    for batch in CheckedReader(files, "predictions", columns, checks.prediction_checks).batches():
        rows, pair = batch.valid, table.pairs_of(batch.valid)
        chosen.add(pair, *explored.choices(rows, pair))
        if ranked:
            candidates.add(pair, rows["candidates"])
        invalid.append(batch.invalid)
    found = chosen.joined(uri, pa.concat_tables(invalid), candidates.joined())
    if explored.is_empty:
        return found
    return dataclasses.replace(found, explored=True, served_c=explored.served_c(found.policy_c(table)))


class _ChosenArtworks:
    """Collects one choice for each pair, and joins them to the examples; only counts those of `UNKNOWN` pairs."""

    def __init__(self, table: ExampleTable):
        self._table, self._other = table, 0
        self._found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]

    def add(self, pair: IntArray, artwork: IntArray, probability: FloatArray) -> None:
        is_known = pair >= 0
        self._found.append((pair[is_known], artwork[is_known], probability[is_known]))
        self._other += int((~is_known).sum())

    def joined(self, uri: str, invalid: pa.Table, candidates: tuple[FloatArray, FloatArray]) -> PredictedChoices:
        table = self._table
        pair, artwork, probability = (np.concatenate(arrays) for arrays in zip(*self._found, strict=True))
        repeated = np.flatnonzero(np.bincount(pair, minlength=len(table.key_p)) > 1)
        if len(repeated):
            several = f"{len(repeated)} pairs occur more than once, such as {table.pair_ids(repeated[0])}"
            raise InputError(f"{uri}: {several}; keep one row of each")
        row_p = np.full(len(table.key_p), UNKNOWN)
        row_p[pair] = np.arange(len(pair))
        row_n = row_p[table.pair_n]
        # `UNKNOWN` is the index of the last row, which stands for a pair without a prediction.
        artwork_n, missing_n = np.append(artwork, UNKNOWN)[row_n], row_n == UNKNOWN
        is_candidate_n = table.is_candidate(artwork_n)
        return PredictedChoices(
            artwork_n=np.where(is_candidate_n, artwork_n, UNKNOWN),
            probability_n=np.append(probability, np.nan)[row_n],
            missing_n=missing_n,
            unknown_artwork=int((~is_candidate_n & ~missing_n).sum()),
            other=self._other,
            invalid=invalid,
            probability_c=candidates[0],
            shown_position_c=candidates[1],
        )


class _RankedCandidates:
    def __init__(self, table: ExampleTable):
        self._table = table
        self._found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)))]

    def add(self, pair: IntArray, lists: pa.ChunkedArray) -> None:
        artworks, row = checks.items(lists, "artwork_id")
        probabilities, _ = checks.items(lists, "probability")
        position = np.arange(len(row)) - np.searchsorted(row, row)
        values = np.stack([probabilities.to_numpy(), position], axis=1)
        self._found.append((pair[row], codes(artworks, self._table.artworks), values))

    def joined(self) -> tuple[FloatArray, FloatArray]:
        pair, artwork, values = (np.concatenate(arrays) for arrays in zip(*self._found, strict=True))
        value_c2 = self._table.join_candidates(pair, artwork, values)
        return value_c2[:, 0], value_c2[:, 1]


def check_belongs(uri: str, choices: PredictedChoices, table: ExampleTable) -> None:
    """Makes sure that something read below `uri` belongs to the examples: otherwise every number would be 0.

    Raises:
        InputError: if no example has a choice, or no choice is a candidate.
    """
    count, missing = len(choices.missing_n), int(choices.missing_n.sum())
    if missing == count:
        unknown = f"none of its {choices.other:,} user-title pairs is among the {len(table.key_p):,} of the examples"
        raise InputError(f"{uri}: {unknown}; check that both have the same users and titles")
    if choices.unknown_artwork == count - missing:
        unknown = f"none of the {choices.unknown_artwork:,} chosen artworks is a candidate of its example"
        raise InputError(f"{uri}: {unknown}; check that both have the same artworks")


def count_invalid(uri: str) -> int:
    """Returns the number of rows that the scoring run found invalid, from the files' footers."""
    files = storage.find_files(storage.join(uri, INVALID_FOLDER))
    return sum(storage.open_parquet(file).metadata.num_rows for file in files)


def read_oracle(uri: str, table: ExampleTable, most_engaging: bool = False) -> PredictedChoices:
    """Reads the best policy of a simulated world for the table's examples; `probability_n` is max q.

    With π0 the logging policy and p the engagement probability, an engaged artwork is a with `q(a) ∝ π0(a) · p(a)`.
    The choice is `argmax q`, the first of equals. It is the best for accuracy and, as m is the same for all candidates
    of an example, for IPS with uniform π. If `most_engaging`, it is `argmax p`: the best for SNIPS and IPS with logged
    propensities.

    Raises:
        InputError: if a row's lists differ in length or hold no positive, finite probability, or a pair occurs twice.
    """
    columns = ["user_id", "title_id", "artwork_ids", "engagement_probabilities", "propensities"]
    weights = columns[3:4] if most_engaging else columns[3:]
    chosen, reader = _ChosenArtworks(table), CheckedReader(storage.list_files(uri), "oracle", columns)
    for rows in reader.valid_batches():
        pair = table.pairs_of(rows)
        artwork, probability = np.full(len(pair), UNKNOWN), np.full(len(pair), np.nan)
        if (pair >= 0).any():
            source = reader.files[rows["file"][0].as_py()]
            artwork[pair >= 0], probability[pair >= 0] = _best(rows.filter(pa.array(pair >= 0)), table, source, weights)
        chosen.add(pair, artwork, probability)
    nothing_c = np.full(len(table.candidate_c), np.nan)
    return chosen.joined(uri, INVALID_ROWS.empty_table(), (nothing_c, nothing_c))


def _best(rows: pa.Table, table: ExampleTable, source: str, weights: list[str]) -> tuple[IntArray, FloatArray]:
    lists = [rows[column] for column in ("artwork_ids", "engagement_probabilities", "propensities")]
    size_o, *other_sizes = [list_lengths(values) for values in lists]
    if (size_o == 0).any() or any((sizes != size_o).any() for sizes in other_sizes):
        wrong = "an oracle row's three lists are empty or differ in length"
        raise InputError(f"{source}: {wrong}; simulate the world again")
    artwork_c = codes(pc.list_flatten(lists[0]), table.artworks)
    joint_c = np.prod([pc.list_flatten(rows[column]).to_numpy() for column in weights], axis=0)
    start_o = np.cumsum(size_o) - size_o
    total_o = np.add.reduceat(joint_c, start_o)
    if not (np.isfinite(total_o) & (total_o > 0)).all() or (joint_c < 0).any():
        raise InputError(f"{source}: an oracle row's probabilities are not positive numbers; simulate the world again")
    best_o = np.maximum.reduceat(joint_c, start_o)
    # Of equal candidates the first: the lowest index among those that reach the best.
    index_c = np.where(joint_c == np.repeat(best_o, size_o), np.arange(len(joint_c)), len(joint_c))
    return artwork_c[np.minimum.reduceat(index_c, start_o)], best_o / total_o
