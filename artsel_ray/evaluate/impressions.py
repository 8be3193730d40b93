"""The policies on a log of all impressions, engaged with or not.

Suffixes: n impressions, c candidates of all of them end to end.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import ExampleTable, list_lengths, number_ids
from artsel_ray.evaluate.policies import SERVED
from artsel_ray.evaluation.examples import UNKNOWN, FloatArray
from artsel_ray.evaluation.off_policy import Log, Terms, selection_warnings
from artsel_ray.evaluation.policies import EstimateSettings, LogResults, evaluate_log, without_direct_method
from artsel_ray.evaluation.reward_model import gain_on_log, slope_on_log, why_left_out, why_not_calibrated
from artsel_ray.runtime.run import prediction_files

_REQUIRED = ["user_id", "title_id", "artwork_id", "engaged"]
_COLUMNS = [*_REQUIRED, "timestamp", "propensity"]
_REPEATED = "the same as an earlier row"


@dataclass(frozen=True)
class Impressions:
    """A log of impressions of pairs that the reward model knows."""

    table: ExampleTable
    """Its `truth_n` is the shown artwork, among the candidates that the reward model knows."""
    reward_n: FloatArray
    """1 for an engagement, else 0."""
    unmatched_rewards: FloatArray
    """Rewards of the impressions that the reward model does not know."""
    invalid: pa.Table
    """Rows that are no impression, as the table `invalid_rows`."""


@dataclass(frozen=True)
class LogEvaluation:
    """`log` of metrics.json."""

    results: LogResults
    left_out: int
    """Number of impressions without a prediction or a usable propensity."""
    invalid: int
    dm_left_out: str
    """Why there is no DM, and where the baseline predicts no better than a constant no DR; empty if there are."""
    warnings: list[str]


def read_impressions(uri: str, reward_model: str, examples: ExampleTable | None = None) -> Impressions:
    """Reads the impressions below `uri` of the pairs that are predicted, with candidates, below `reward_model`.

    Candidates that read the same in the examples do so here. Rows that repeat another one are invalid, as in `prepare`.

    Raises:
        InputError: if there is none.
    """
    files = storage.list_files(uri)
    log = CheckedReader(files, "impressions", _COLUMNS, _impression_checks).all()
    if not log.read.num_rows:
        raise InputError(f"{uri} has no row; give a log of impressions")
    repeated_n = log.valid.select(_COLUMNS).to_pandas().duplicated().to_numpy()
    valid, repeated = checks.split_valid(log.valid, "impressions", files, [("row", _REPEATED, repeated_n)])
    invalid = pa.concat_tables([log.invalid, repeated])
    shown = _with_candidates(valid, _read_candidates(reward_model))
    # The shown artwork's index in its list of candidates is the example's label.
    artwork_c, row_c = checks.items(shown["candidates"], "artwork_id")
    found_c = np.flatnonzero(checks.mask(pc.equal(artwork_c, shown["artwork_id"].take(pa.array(row_c)))))
    size_n, label_n = list_lengths(shown["candidates"]), np.full(shown.num_rows, UNKNOWN)
    label_n[row_c[found_c]] = found_c - (np.cumsum(size_n) - size_n)[row_c[found_c]]
    is_known_n = label_n != UNKNOWN
    if not is_known_n.any():
        raise InputError(
            f"{uri}: no impression of a pair whose candidates are in {reward_model}; give a --baseline with every "
            "candidate's probability (jobs/baseline.py, or jobs/score.py --decoding rank) for the pairs of the log"
        )
    reward_n = np.asarray(shown["engaged"], dtype=np.float64)
    labeled = shown.append_column("label", pa.array(label_n)).filter(pa.array(is_known_n))
    table = number_ids(labeled, invalid, examples.texts if examples else None)
    return Impressions(table, reward_n[is_known_n], reward_n[~is_known_n], invalid)


def _impression_checks(rows: pa.Table) -> list[checks.RowCheck]:
    return [(name, checks.MISSING, checks.missing(rows[name])) for name in _REQUIRED]


def _read_candidates(predictions: str) -> pa.Table:
    columns = ["user_id", "title_id", "candidates.artwork_id"]
    found = CheckedReader(prediction_files(predictions), "predictions", columns).all().valid
    return found.filter(pc.greater(pc.list_value_length(found["candidates"]), 0))


def _with_candidates(impressions: pa.Table, candidates: pa.Table) -> pa.Table:
    # Arrow cannot join columns of lists, so it joins their row numbers.
    keys = candidates.select(["user_id", "title_id"])
    keys = keys.append_column("list", pa.array(np.arange(candidates.num_rows)))
    joined = impressions.drop_columns(["file", "row"]).join(keys, ["user_id", "title_id"], join_type="left outer")
    return joined.append_column("candidates", candidates["candidates"].take(joined["list"]))


def evaluate_impressions(
    impressions: Impressions, predictions: str, reward_model: str, settings: EstimateSettings
) -> LogEvaluation:
    """Returns the engagement that model, random and baseline would have got, and the log's own.

    The reward model is `r̂(a|x) = min(1, v · m · q̂(a|x))`, with q̂ the baseline's probability that an engaged artwork
    is a, and v the log's mean reward: right if artworks were shown uniformly and titles differed in nothing. It
    need not be right for DR, whose expectation it does not change (v, from the same log, adds O(1/N)). If it predicts
    no better than v itself, DM and DR are left out; if it is not calibrated, DM is. `predictions` and `reward_model`
    are the URIs of the model's and the baseline's predictions.
    """
    table, examples = impressions.table, impressions.table.examples
    model, baseline = read_choices(predictions, table), read_choices(reward_model, table, ranked=True)
    is_usable_n = ~model.missing_n & ~baseline.missing_n & np.isfinite(examples.propensity_n)
    if not is_usable_n.any():
        raise InputError(
            f"no impression has a usable propensity and a prediction in both {predictions} and {reward_model}; give "
            "predictions for the pairs of the log"
        )
    used_n = impressions.reward_n[is_usable_n]
    size_c = np.repeat(examples.candidates_n, examples.candidates_n)
    reward_c = np.minimum(1.0, float(used_n.mean()) * size_c * baseline.probability_c)
    logging_n = np.where(is_usable_n, examples.propensity_n, np.nan)
    gain_n = np.full(len(logging_n), np.nan)
    gain_n[is_usable_n] = gain_on_log(used_n, examples.truth_of(reward_c)[is_usable_n])
    dm_left_out = why_left_out(gain_n, examples.user_n, settings.resamples, settings.seed)
    if dm_left_out:
        reward_c = np.full(len(reward_c), np.nan)
    predicted_n = examples.truth_of(reward_c)

    def seen_by(policy_c: FloatArray) -> Log:
        target_n, expected_n = examples.truth_of(policy_c), examples.sums_of(policy_c * reward_c)
        return Log(impressions.reward_n, logging_n, target_n, predicted_n, expected_n)

    policies = {
        "model": model.policy_c(table),
        SERVED["model"]: model.served_c,
        "random": examples.uniform_c,
        "baseline": baseline.policy_c(table),
        SERVED["baseline"]: baseline.served_c,
    }
    logs = {name: seen_by(policy_c) for name, policy_c in policies.items() if policy_c is not None}
    left_out = np.concatenate([impressions.unmatched_rewards, impressions.reward_n[~is_usable_n]])
    results, warnings = evaluate_log(logs, examples.user_n, settings), selection_warnings(used_n, left_out)
    if not dm_left_out:
        user_n = np.unique(examples.user_n[is_usable_n], return_inverse=True)[1]
        predicted_n = predicted_n[is_usable_n]
        error = Terms(used_n - predicted_n, np.ones(len(used_n)))
        slope = slope_on_log(used_n, predicted_n)
        dm_left_out = why_not_calibrated(slope, error, user_n, settings.resamples, settings.seed)
        results = without_direct_method(results) if dm_left_out else results
    return LogEvaluation(results, len(left_out), impressions.invalid.num_rows, dm_left_out, warnings)
