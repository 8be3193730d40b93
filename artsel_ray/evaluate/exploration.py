"""Predictions of a run that explored: each one's most likely candidate as its choice, and the policy as served.

Suffixes: r rows with a propensity, l their candidates end to end, c candidates of the examples end to end.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.evaluate.example_table import ExampleTable, codes, list_lengths
from artsel_ray.evaluation.examples import FloatArray, IntArray
from artsel_ray.evaluation.exploration import most_likely, served_policy


def explores(files: list[str]) -> bool:
    """Returns whether any prediction has a propensity: what was drawn is then not what the model would choose."""
    batches = CheckedReader(files, "predictions", ["propensity"]).batches()
    return any(batch.read["propensity"].null_count < batch.read.num_rows for batch in batches)


class ExploredRows:
    """Collects the rows with a propensity below `uri`, of the pairs of the table's examples."""

    def __init__(self, uri: str, table: ExampleTable) -> None:
        self._uri, self._table = uri, table
        self._rows: list[tuple[IntArray, IntArray, IntArray, FloatArray]] = []
        self._candidates: list[tuple[IntArray, FloatArray]] = []

    def choices(self, rows: pa.Table, pair: IntArray) -> tuple[IntArray, FloatArray]:
        """Returns each row's choice and its probability: the most likely candidate where the row has a propensity.

        Raises:
            InputError: if a row has a propensity and no candidates, or serves none of them.
        """
        artwork, probability = codes(rows["artwork_id"], self._table.artworks), rows["probability"].to_numpy()
        is_explored = checks.mask(rows["propensity"].is_valid())
        if not is_explored.any():
            return artwork, probability
        explored = rows.filter(pa.array(is_explored))
        artwork_l, probability_l, size_r, served_r = self._lists(explored)
        greedy_r = most_likely(probability_l, size_r, self._table.texts_of(artwork_l, size_r))
        self._rows.append((pair[is_explored], size_r, served_r - (np.cumsum(size_r) - size_r),
                           explored["propensity"].to_numpy()))  # fmt: skip
        self._candidates.append((artwork_l, probability_l))
        artwork, probability = artwork.copy(), probability.copy()
        artwork[is_explored], probability[is_explored] = artwork_l[greedy_r], probability_l[greedy_r]
        return artwork, probability

    def _lists(self, rows: pa.Table) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        size_r = list_lengths(rows["candidates"])
        advice = "score with --decoding rank or labels, and evaluate the complete output"
        if lacking := int((size_r == 0).sum()):
            problem = f"{lacking:,} predictions have a propensity and no candidates, so what was drawn cannot be told"
            raise InputError(f"{self._uri}: {problem} from what the model would choose; {advice}")
        ids, row_l = checks.items(rows["candidates"], "artwork_id")
        probabilities, _ = checks.items(rows["candidates"], "probability")
        is_served_l = checks.mask(pc.equal(ids, rows["artwork_id"].take(pa.array(row_l))))
        served_rows, served_r = np.unique(row_l[is_served_l], return_index=True)
        if lacking := len(size_r) - len(served_rows):
            problem = f"{lacking:,} predictions have a propensity, and an artwork that is none of their candidates"
            raise InputError(f"{self._uri}: {problem}; {advice}")
        return codes(ids, self._table.artworks), probabilities.to_numpy(), size_r, np.flatnonzero(is_served_l)[served_r]

    @property
    def is_empty(self) -> bool:
        """Whether no row has a propensity."""
        return not self._rows

    def served_c(self, choice_c: FloatArray) -> FloatArray | None:
        """Returns the policy as served on the examples' candidates; None if its propensities are of no known policy.

        Args:
            choice_c: the policy where no prediction has a propensity.
        """
        pair_r, size_r, offset_r, propensity_r = (np.concatenate(arrays) for arrays in zip(*self._rows, strict=True))
        artwork_l, probability_l = (np.concatenate(arrays) for arrays in zip(*self._candidates, strict=True))
        served_r = np.cumsum(size_r) - size_r + offset_r
        greedy_r = most_likely(probability_l, size_r, self._table.texts_of(artwork_l, size_r))
        policy_l = served_policy(probability_l, size_r, greedy_r, served_r, propensity_r)
        if policy_l is None:
            return None
        pair_l = np.repeat(pair_r, size_r)
        found_c = self._table.join_candidates(pair_l, artwork_l, policy_l[:, None])[:, 0]
        is_explored_c = np.isin(np.repeat(self._table.pair_n, self._table.examples.candidates_n), pair_r)
        return np.where(is_explored_c, np.nan_to_num(found_c), choice_c)
