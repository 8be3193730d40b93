"""The metrics of policies on logged choices, each with an interval, as plain numbers.

Suffixes: n examples, c candidates of all examples end to end, u users.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation.bootstrap import Estimate, bootstrap
from artsel_ray.evaluation.offpolicy import (
    FloatArray,
    Terms,
    effective_sample_size,
    importance_weights,
    ips,
    snips,
)

IntArray = NDArray[np.int64]
METRICS = ("accuracy", "ips", "snips", "ips_logged", "snips_logged")


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


def truth_probability(score_c: FloatArray | IntArray, examples: Examples) -> FloatArray:
    """Returns the probability of the engaged artwork under a uniform draw among the highest-scored candidates.

    Exact, not sampled: equal scores everywhere give 1/m; one highest score gives 1 or 0.
    """
    start_n = np.concatenate([[0], np.cumsum(examples.candidates_n)[:-1]])
    best_c = np.repeat(np.maximum.reduceat(score_c, start_n), examples.candidates_n) == score_c
    best_n = np.add.reduceat(best_c.astype(np.int64), start_n)
    return best_c[start_n + examples.position_n] / best_n


def policy_terms(examples: Examples, truth_n: FloatArray) -> dict[str, Terms]:
    """Returns `METRICS` of a policy as ratios of sums.

    `accuracy = mean(truth)`; `ips` and `snips` take π uniform over the title's candidates (the paper's), their
    `_logged` twins the logged propensity, over the examples that have one.
    """
    ones_n = np.ones(len(truth_n))
    return {
        "accuracy": Terms(truth_n, ones_n),
        "ips": ips(truth_n, examples.uniform_n),
        "snips": snips(truth_n, examples.uniform_n),
        "ips_logged": ips(truth_n, examples.propensity_n),
        "snips_logged": snips(truth_n, examples.propensity_n),
    }


def _all_terms(examples: Examples, policies: Mapping[str, FloatArray]) -> Iterator[tuple[str, Terms]]:
    for policy, truth_n in policies.items():
        for metric, terms in policy_terms(examples, truth_n).items():
            yield f"{policy}/{metric}", terms
    for position in np.unique(examples.position_n):
        at_n = (examples.position_n == position).astype(np.float64)
        yield f"model@{position}", Terms(policies["model"] * at_n, at_n)


def evaluate_policies(
    examples: Examples, policies: Mapping[str, FloatArray], resamples: int, seed: int
) -> dict[str, Any]:
    """Returns the metrics of `policies["model"]`, of each other policy, and of the one relative to the others.

    Args:
        policies: for each policy `truth_n`, the probability with which it chooses the engaged artwork.

    Returns:
        `model` and `references` (each metric as `{"value", "low", "high"}`, and `effective_sample_size`),
        `by_position` and `relative` (percent). A number that is not defined is None.
    """
    estimates = bootstrap(_all_terms(examples, policies), examples.user_n, resamples, seed)
    rows = {
        policy: {metric: plain(estimates[f"{policy}/{metric}"]) for metric in METRICS}
        | {"effective_sample_size": _effective_sample_size(examples, truth_n)}
        for policy, truth_n in policies.items()
    }
    relative = {
        policy: {
            metric: plain(estimates[f"model/{metric}"].percent_over(estimates[f"{policy}/{metric}"]))
            for metric in ("accuracy", "ips")
        }
        for policy in policies
        if policy != "model"
    }
    return {
        "model": rows.pop("model"),
        "by_position": _by_position(examples, estimates),
        "relative": relative,
        "references": rows,
    }


def _effective_sample_size(examples: Examples, truth_n: FloatArray) -> float:
    """Kish's, of the weights `truth / propensity`; of `truth · m` where no propensity is known at all."""
    known = bool(np.isfinite(examples.propensity_n).any())
    return effective_sample_size(importance_weights(truth_n, examples.propensity_n if known else examples.uniform_n))


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
