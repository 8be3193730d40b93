"""Policies on a log of all impressions, engaged with or not.

Suffixes: n impressions, c candidates of all of them end to end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.data import checks
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import prediction_files, read_choices
from artsel_ray.evaluate.example_table import ExampleTable, number_ids, read_batches
from artsel_ray.evaluation.metrics import FloatArray, evaluate_log
from artsel_ray.evaluation.off_policy import Log

# Rewards of the impressions with and without predictions that differ by more standard errors do not by chance.
_BY_CHANCE = 5.0


@dataclass(frozen=True)
class Impressions:
    """A log: the table's `truth_n` is the artwork shown, among the candidates that a reward model knows.

    Attributes:
        reward_n: 1 for an engagement, else 0.
        elsewhere: the rewards of the impressions that the reward model knows nothing of.
        rejected: rows that are no impression, as the table `invalid`.
    """

    table: ExampleTable
    reward_n: FloatArray
    elsewhere: FloatArray
    invalid: pa.Table


def read_impressions(uri: str, reward_model: str) -> Impressions:
    """Reads the impressions below `uri` of the pairs that are predicted, with candidates, below `reward_model`.

    Raises:
        InputError: if there is none.
    """
    columns, parts, invalid = ["user_id", "title_id", "artwork_id", "engaged", "propensity"], [], []
    for file in storage.list_files(uri):
        for row, batch in read_batches(file, "impressions", columns):
            readable, unreadable = checks.split_readable(with_source_rows(batch, 0, row), "impressions", [file])
            found = [(name, checks.MISSING, checks.missing(readable[name])) for name in columns[:4]]
            good, bad = checks.split_valid(readable, "impressions", [file], found)
            parts.append(good.select(columns))
            invalid += [unreadable, bad]
    listed = [
        batch.filter(pc.greater(pc.list_value_length(batch["candidates"]), 0))
        for file in prediction_files(reward_model)
        for _, batch in read_batches(file, "predictions", ["user_id", "title_id", "candidates"])
    ]
    if not parts or not listed:
        raise InputError(f"{uri} or {reward_model} has no row")
    predicted = pa.concat_tables(listed)
    keys = predicted.select(["user_id", "title_id"]).append_column("list", pa.array(np.arange(predicted.num_rows)))
    shown = pa.concat_tables(parts).join(keys, ["user_id", "title_id"], join_type="left outer")
    lists = predicted["candidates"].take(shown["list"])
    artwork_c, row_c = checks.items(lists, "artwork_id")
    place_c = np.flatnonzero(checks.mask(pc.equal(artwork_c, shown["artwork_id"].take(pa.array(row_c)))))
    known_n = np.zeros(shown.num_rows, dtype=bool)
    known_n[row_c[place_c]] = True
    if not known_n.any():
        raise InputError(
            f"{uri}: no impression of a pair whose candidates are in {reward_model}; give a --baseline with every "
            "candidate's probability (jobs/baseline.py, or jobs/score.py --decoding rank) for the pairs of the log"
        )
    size_n = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    start_n = np.cumsum(size_n) - size_n
    label_n = np.full(shown.num_rows, -1)
    label_n[row_c[place_c]] = place_c - start_n[row_c[place_c]]
    reward_n = np.asarray(shown["engaged"], dtype=np.float64)
    table = number_ids(
        shown.filter(known_n),
        *(
            label_n[known_n],
            size_n[known_n].astype(np.int64),
            artwork_c.filter(pa.array(known_n[row_c])),
        ),
        pa.concat_tables(invalid),
    )
    return Impressions(table, reward_n[known_n], reward_n[~known_n], table.invalid)


def evaluate_impressions(
    found: Impressions, predictions: str, reward_model: str, resamples: int, seed: int, max_weight: float
) -> dict[str, Any]:
    """Returns `log` of metrics.json: what model, random and baseline would have got, and what was got.

    The reward model is `r̂(a|x) = min(1, v · m · q̂(a|x))`, with q̂ the baseline's probability that an engaged artwork
    is a, and v the log's mean reward: right if artworks had been shown uniformly and titles differed in nothing. It
    need not be right for DR, whose expectation it does not change (v, out of the same log, adds O(1/N)).
    """
    table, examples = found.table, found.table.examples
    model, baseline = read_choices(predictions, table), read_choices(reward_model, table, ranked=True)
    usable_n = ~model.missing_n & ~baseline.missing_n & np.isfinite(examples.propensity_n)
    if not usable_n.any():
        raise InputError(f"no impression has a usable propensity and a prediction in {predictions} and {reward_model}")
    logging_n = np.where(usable_n, examples.propensity_n, np.nan)
    rate = float(found.reward_n[usable_n].mean())
    reward_c = np.minimum(1.0, rate * np.repeat(examples.candidates_n, examples.candidates_n) * baseline.probability_c)
    random_c = np.repeat(examples.uniform_n, examples.candidates_n)
    logs = {
        name: Log(
            *(found.reward_n, logging_n, examples.truth_of(policy_c), examples.truth_of(reward_c)),
            examples.sums_of(policy_c * reward_c),
        )
        for name, policy_c in {
            "model": model.policy_c(table), "random": random_c, "baseline": baseline.policy_c(table)
        }.items()
    }  # fmt: skip
    result = evaluate_log(logs, examples.user_n, resamples, seed, max_weight)
    others = np.concatenate([found.elsewhere, found.reward_n[~usable_n]])
    return {
        **result,
        "left_out": len(others),
        "rejected_impressions": found.invalid.num_rows,
        "warnings": _selection(rate, int(usable_n.sum()), others),
    }


def _selection(rate: float, count: int, others: FloatArray) -> list[str]:
    """Returns whether the pairs with predictions were chosen by what came of them, which no estimator can mend."""
    if rate == 1:
        return [
            "every impression of the log is engaged with: what was shown in vain is missing, and so no value is right"
        ]
    if not len(others):
        return []
    pooled = (rate * count + others.sum()) / (count + len(others))
    error = np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / len(others)))
    if abs(rate - others.mean()) <= _BY_CHANCE * error:
        return []
    return [
        f"{rate:.1%} of the impressions with predictions are engaged with, {others.mean():.1%} of the {len(others):,} "
        "others: the pairs were chosen by what came of them, do not trust these values"
    ]
