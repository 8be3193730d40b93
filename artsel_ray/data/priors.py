"""Priors: another model's predictions, with the probabilities of all candidates."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import prediction_files

_COLUMNS = ["user_id", "title_id", "artwork_id", "probability", "candidates", "model_id"]


class KnownPrior(NamedTuple):
    """What a prior says of a pair."""

    probability_m: NDArray[np.float64]
    """[M] of the candidates asked for, which sum to 1."""
    top: float
    """Probability of its most likely candidate, as the table has it."""


class Prior:
    """Distributions over candidates, by user and title."""

    def __init__(self, predictions: pa.Table) -> None:
        """Takes the predictions' distributions; of a pair that occurs twice the first."""
        lists = predictions["candidates"].combine_chunks()
        ids, values = (pc.struct_field(lists.values, name) for name in ("artwork_id", "probability"))
        self._ids, self._probability_c = ids, pc.fill_null(values, 0.0).to_numpy()
        bounds = lists.offsets.to_pylist()
        pairs = zip(predictions["user_id"].to_pylist(), predictions["title_id"].to_pylist(), strict=True)
        self._row: dict[tuple[str, str], tuple[int, int]] = {}
        for row, pair in enumerate(pairs):
            self._row.setdefault(pair, (bounds[row], bounds[row + 1]))
        self.model_ids = sorted(set(predictions["model_id"].to_pylist()))

    def row(self, user_id: str, title_id: str, artwork_ids: Sequence[str]) -> KnownPrior | None:
        """Returns what the prior says, or None for an unknown pair, or one without any of these candidates.

        A candidate that the prior does not know is as likely as those that it knows are on average.
        """
        if (span := self._row.get((user_id, title_id))) is None:
            return None
        known = dict(zip(self._ids[slice(*span)].to_pylist(), self._probability_c[slice(*span)].tolist(), strict=True))
        found = np.array([known.get(artwork_id, np.nan) for artwork_id in artwork_ids])
        if np.isnan(found).all() or not np.nansum(found):
            return None
        found = np.where(np.isnan(found), np.nanmean(found), found)
        return KnownPrior(found / found.sum(), float(self._probability_c[slice(*span)].max()))

    def of(self, user_id: str, title_id: str, artwork_ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Returns the candidates' probabilities alone; see `row`."""
        found = self.row(user_id, title_id, artwork_ids)
        return None if found is None else found.probability_m


def read_prior(uri: str, limits: RowLimits = DEFAULT_LIMITS) -> Prior:
    """Reads a prior's predictions.

    Raises:
        InputError: if there are none, if they are of an unfinished run, or one has no probabilities of its candidates.
    """
    reader = CheckedReader(prediction_files(uri), "predictions", _COLUMNS, checks.prediction_checks, limits=limits)
    batch = reader.all()
    if batch.invalid.num_rows:
        first = batch.invalid.slice(0, 1).to_pylist()[0]
        where = f"{first['file']}, row {first['row']}, {first['column']}: {first['reason']}"
        raise InputError(f"--prior {uri} has {batch.invalid.num_rows:,} invalid rows, the first in {where}")
    rows = batch.valid
    without = int(pc.sum(pc.equal(pc.fill_null(pc.list_value_length(rows["candidates"]), 0), 0)).as_py() or 0)
    if without or not rows.num_rows:
        what = f"{without:,} of {rows.num_rows:,} predictions without their candidates' probabilities"
        raise InputError(f"--prior {uri} has {what}; write them with --decoding rank, or `baseline --folds`")
    return Prior(rows)
