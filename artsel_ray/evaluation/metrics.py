"""The metrics of policies on logged choices, each with an interval, as plain numbers.

Suffixes: n examples, c candidates of all examples end to end, u users.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation.bootstrap import Estimate, bootstrap
from artsel_ray.evaluation.diagnostics import overlap_warnings, weight_warnings
from artsel_ray.evaluation.off_policy import (
    FloatArray,
    Log,
    Terms,
    direct_method,
    effective_sample_size,
    importance_weights,
    ips,
    log_terms,
    snips,
)

IntArray = NDArray[np.int64]
METRICS = ("accuracy", "ips", "snips", "dm", "ips_logged", "snips_logged")
LOG_METRICS = ("ips", "snips", "dm", "dr", "sndr")


@dataclass(frozen=True)
class Examples:
    """N logged choices: whose, where the engaged artwork stands, among how many, and how likely it was shown.

    Attributes:
        user_n: users, numbered from 0 without gaps.
        position_n: 0-based place of the engaged artwork among the title's candidates.
        candidates_n: how many candidates the title has (m).
        propensity_n: of the logging policy showing the engaged artwork, in (0, 1]; NaN where it is not known.
    """

    user_n: IntArray
    position_n: IntArray
    candidates_n: IntArray
    propensity_n: FloatArray

    @property
    def uniform_n(self) -> FloatArray:
        """The uniform policy's probability of each engaged artwork, 1/m."""
        return 1.0 / self.candidates_n

    @property
    def start_n(self) -> IntArray:
        """Where each example's candidates begin among all candidates end to end."""
        return np.cumsum(self.candidates_n) - self.candidates_n

    def truth_of(self, value_c: FloatArray) -> FloatArray:
        """Returns each engaged artwork's value, of one for every candidate."""
        return value_c[self.start_n + self.position_n]

    def sums_of(self, value_c: FloatArray) -> FloatArray:
        """Returns the sum of each example's candidates' values."""
        return np.add.reduceat(value_c, self.start_n)


def highest(score_c: FloatArray | IntArray, examples: Examples) -> FloatArray:
    """Returns every candidate's probability under a uniform draw among its example's highest-scored ones.

    Exact, not sampled: equal scores everywhere give 1/m each; one highest score gives it 1.
    """
    best_c = np.repeat(np.maximum.reduceat(score_c, examples.start_n), examples.candidates_n) == score_c
    return best_c / np.repeat(examples.sums_of(best_c.astype(np.float64)), examples.candidates_n)


def policy_terms(
    examples: Examples, truth_n: FloatArray, expected_n: FloatArray, max_weight: float
) -> dict[str, Terms]:
    """Returns `METRICS` of a policy as ratios of sums.

    `accuracy = mean(truth)`; `ips` and `snips` take π0 uniform over the title's candidates (the paper's), their
    `_logged` twins the logged propensity, over the examples that have one, with weights of at most `max_weight`. `dm`
    is what a reward model expects `ips` to be, `mean(m · expected)`.
    """
    return {
        "accuracy": Terms(truth_n, np.ones(len(truth_n))),
        "ips": ips(truth_n, examples.uniform_n),
        "snips": snips(truth_n, examples.uniform_n),
        "dm": direct_method(examples.candidates_n * expected_n, examples.uniform_n),
        "ips_logged": ips(truth_n, examples.propensity_n, max_weight),
        "snips_logged": snips(truth_n, examples.propensity_n, max_weight),
    }


def evaluate_policies(
    examples: Examples,
    policies: Mapping[str, FloatArray],
    resamples: int,
    seed: int,
    expected: Mapping[str, FloatArray] | None = None,
    max_weight: float = math.inf,
) -> dict[str, Any]:
    """Returns the metrics of `policies["model"]`, of each other policy, and of the one against the others.

    Args:
        policies: for each policy `truth_n`, the probability with which it chooses the engaged artwork.
        expected: for policies of which a reward model q̂ says it, the same as it is expected, `Σ_a π(a) q̂(a)`; NaN
            where the model lacks the example.
        max_weight: importance weights by logged propensities are cut to it.

    Returns:
        `model` and `references` (each metric as `{"value", "low", "high"}`, `effective_sample_size`, and `warnings`
        of the gates), `by_position`, `relative` (percent) and `difference` (model less reference). A number that is
        not defined is None.
    """
    unknown_n = np.full(len(examples.user_n), np.nan)

    def terms() -> Iterator[tuple[str, Terms]]:
        for name, truth_n in policies.items():
            expected_n = (expected or {}).get(name, unknown_n)
            for metric, of in policy_terms(examples, truth_n, expected_n, max_weight).items():
                yield f"{name}/{metric}", of
        for position in np.unique(examples.position_n):
            at_n = (examples.position_n == position).astype(np.float64)
            yield f"model@{position}", Terms(policies["model"] * at_n, at_n)

    estimates = bootstrap(terms(), examples.user_n, resamples, seed)
    rows = {
        name: {metric: plain(estimates[f"{name}/{metric}"]) for metric in METRICS}
        | _carried_by(examples, truth_n, max_weight)
        for name, truth_n in policies.items()
    }
    relative = {
        name: {
            metric: plain(estimates[f"model/{metric}"].percent_over(estimates[f"{name}/{metric}"]))
            for metric in ("accuracy", "ips")
        }
        for name in policies
        if name != "model"
    }
    return {
        "model": rows.pop("model"),
        "by_position": _by_position(examples, estimates),
        "relative": relative,
        "difference": _differences(estimates, policies, METRICS),
        "references": rows,
    }


def _differences(
    estimates: Mapping[str, Estimate], policies: Iterable[str], metrics: Iterable[str]
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Returns model less each other policy, paired by resample."""
    return {
        name: {metric: plain(estimates[f"model/{metric}"].minus(estimates[f"{name}/{metric}"])) for metric in metrics}
        for name in policies
        if name != "model"
    }


def evaluate_log(
    logs: Mapping[str, Log], user_n: IntArray, resamples: int, seed: int, max_weight: float = math.inf
) -> dict[str, Any]:
    """Returns what each policy would have got out of a log of impressions, and what was got.

    Args:
        logs: for each policy the log as it sees it: the same impressions, rewards and propensities.

    Returns:
        `logged` (the mean reward), `policies` (each of `LOG_METRICS`, `effective_sample_size` and `warnings`),
        `difference` (`logs["model"]` less each other).
    """
    first = next(iter(logs.values()))
    known_n = np.where(np.isnan(first.logging_n), 0.0, 1.0)
    terms = [("logged", Terms(first.reward_n * known_n, known_n))]
    for name, log in logs.items():
        terms += [(f"{name}/{metric}", of) for metric, of in log_terms(log, max_weight).items()]
    estimates = bootstrap(terms, user_n, resamples, seed)
    for name in logs:
        estimates[f"{name}/sndr"] = estimates[f"{name}/dm"].plus(estimates[f"{name}/residual"])
    rows: dict[str, dict[str, Any]] = {}
    for name, log in logs.items():
        weight_n = importance_weights(log.target_n, log.logging_n, max_weight)
        overlap = overlap_warnings(importance_weights(log.target_n, log.logging_n), log.logging_n)
        rows[name] = {metric: plain(estimates[f"{name}/{metric}"]) for metric in LOG_METRICS} | {
            "effective_sample_size": effective_sample_size(weight_n),
            "warnings": weight_warnings(weight_n, log.logging_n) + overlap,
        }
    return {
        "impressions": int(known_n.sum()),
        "logged": plain(estimates["logged"]),
        "policies": rows,
        "difference": _differences(estimates, logs, LOG_METRICS),
    }


def _carried_by(examples: Examples, truth_n: FloatArray, max_weight: float) -> dict[str, Any]:
    """Returns the gates' words and Kish's size of the weights `truth / propensity`; `truth · m` where none is known."""
    weight_n = importance_weights(truth_n, examples.uniform_n)
    warnings = [f"ips: {text}" for text in weight_warnings(weight_n, examples.uniform_n)]
    if np.isfinite(examples.propensity_n).any():
        weight_n = importance_weights(truth_n, examples.propensity_n, max_weight)
        warnings += [f"ips_logged: {text}" for text in weight_warnings(weight_n, examples.propensity_n)]
    return {"effective_sample_size": effective_sample_size(weight_n), "warnings": warnings}


def _by_position(examples: Examples, estimates: Mapping[str, Estimate]) -> list[dict[str, Any]]:
    rows = []
    for position in np.unique(examples.position_n):
        at_n = examples.position_n == position
        estimate = plain(estimates[f"model@{position}"])
        rows.append(
            {
                "position": int(position),
                "examples": int(at_n.sum()),
                "accuracy": estimate["value"],
                "low": estimate["low"],
                "high": estimate["high"],
                "random": float(examples.uniform_n[at_n].mean()),
            }
        )
    return rows


def plain(estimate: Estimate) -> dict[str, float | None]:
    """Returns `{"value", "low", "high"}` (95 %, percentiles) for JSON, None where not finite."""
    low, high = estimate.interval()
    numbers = {"value": estimate.value, "low": low, "high": high}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()}
