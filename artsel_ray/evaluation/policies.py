"""Several policies side by side: every metric with its interval, the model against the others, and warnings.

Suffix: n examples or impressions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from artsel_ray.evaluation.bootstrap import Estimate, Measurement, bootstrap
from artsel_ray.evaluation.diagnostics import overlap_warnings, weight_warnings
from artsel_ray.evaluation.examples import Examples, IntArray, PolicyOnExamples
from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS, Metric, T
from artsel_ray.evaluation.off_policy import Log, Terms, effective_sample_size, importance_weights

MODEL = "model"
"""Name of the policy that the others are references for."""

Estimates = Mapping[tuple[str, object], Estimate]
"""By policy and by metric or position."""


@dataclass(frozen=True)
class EstimateSettings:
    """How estimates and their intervals are computed."""

    resamples: int
    """Bootstrap resamples of the users."""
    seed: int
    """Seed of the bootstrap."""
    max_weight: float = math.inf
    """Clipping limit of importance weights by logged propensities."""


@dataclass(frozen=True)
class PolicyResult:
    """What one policy is worth."""

    metrics: dict[str, Measurement]
    """By the metrics' names."""
    effective_sample_size: float
    """Kish's size of the importance weights."""
    warnings: list[str]
    """What not to trust."""


@dataclass(frozen=True)
class PositionResult:
    """The model's accuracy where the engaged artwork stands at one position."""

    position: int
    """0-based."""
    examples: int
    accuracy: float | None
    low: float | None
    """Lower end of the accuracy's 95 % interval."""
    high: float | None
    random: float
    """Accuracy of a random draw, the mean of 1/m."""


@dataclass(frozen=True)
class ExampleResults:
    """Policies on examples. The model is compared with every other policy, paired by resample."""

    policies: dict[str, PolicyResult]
    relative: dict[str, dict[str, Measurement]]
    """For each other policy and headline metric, how many percent the model is above it."""
    difference: dict[str, dict[str, Measurement]]
    """For each other policy and metric, model - policy."""
    by_position: list[PositionResult]


@dataclass(frozen=True)
class LogResults:
    """Policies on a log of impressions, in rewards per impression."""

    impressions: int
    logged: Measurement
    """Mean reward of the logging policy."""
    policies: dict[str, PolicyResult]
    difference: dict[str, dict[str, Measurement]]
    """For each other policy and metric, model - policy, paired by resample."""


def evaluate_policies(policies: Mapping[str, PolicyOnExamples], settings: EstimateSettings) -> ExampleResults:
    """Returns every metric of every policy, and the model's against the others'.

    Args:
        policies: by name, the model among them, all on the same examples. Their order does not change the draws.
    """
    examples = policies[MODEL].examples

    def terms() -> Iterator[tuple[tuple[str, object], Terms]]:
        yield from _terms(policies, METRICS, settings.max_weight)
        for position in np.unique(examples.position_n):
            at_n = (examples.position_n == position).astype(np.float64)
            yield (MODEL, int(position)), Terms(policies[MODEL].truth_n * at_n, at_n)

    estimates = _with_sums(bootstrap(terms(), examples.user_n, settings.resamples, settings.seed), policies, METRICS)
    headline = [metric for metric in METRICS if metric.is_headline]
    return ExampleResults(
        policies={
            name: PolicyResult(_measured(estimates, name, METRICS), *_weight_diagnostics(policy, settings.max_weight))
            for name, policy in policies.items()
        },
        relative={
            name: {
                metric.name: estimates[MODEL, metric.name].percent_over(estimates[name, metric.name]).measurement()
                for metric in headline
            }
            for name in policies
            if name != MODEL
        },
        difference=_differences(estimates, policies, METRICS),
        by_position=[_at_position(examples, int(position), estimates) for position in np.unique(examples.position_n)],
    )


def evaluate_log(logs: Mapping[str, Log], user_n: IntArray, settings: EstimateSettings) -> LogResults:
    """Returns the rewards that each policy would have got from a log of impressions, and those that were got.

    Args:
        logs: for each policy, the model among them, the log as it sees it: the same impressions, rewards and
            propensities.
        user_n: each impression's user, numbered from 0 without gaps.
    """
    log = logs[MODEL]

    def terms() -> Iterator[tuple[tuple[str, object], Terms]]:
        yield ("", "logged"), Terms(log.reward_n * log.known_n, log.known_n)
        yield from _terms(logs, LOG_METRICS, settings.max_weight)

    estimates = _with_sums(bootstrap(terms(), user_n, settings.resamples, settings.seed), logs, LOG_METRICS)
    return LogResults(
        impressions=int(log.known_n.sum()),
        logged=estimates["", "logged"].measurement(),
        policies={
            name: PolicyResult(_measured(estimates, name, LOG_METRICS), *_log_diagnostics(seen, settings.max_weight))
            for name, seen in logs.items()
        },
        difference=_differences(estimates, logs, LOG_METRICS),
    )


def _terms(
    policies: Mapping[str, T], metrics: Iterable[Metric[T]], max_weight: float
) -> Iterator[tuple[tuple[str, object], Terms]]:
    for name, policy in policies.items():
        for metric in metrics:
            yield (name, metric.name), metric.terms(policy, max_weight)


def _with_sums(estimates: Estimates, policies: Iterable[str], metrics: Iterable[Metric[T]]) -> Estimates:
    """Returns the estimates with those of metrics that are a sum completed."""
    sums: dict[tuple[str, object], Estimate] = {
        (name, metric.name): estimates[name, metric.name].plus(estimates[name, metric.plus])
        for name in policies
        for metric in metrics
        if metric.plus
    }
    return {**estimates, **sums}


def _measured(estimates: Estimates, policy: str, metrics: Iterable[Metric[T]]) -> dict[str, Measurement]:
    return {metric.name: estimates[policy, metric.name].measurement() for metric in metrics}


def _differences(
    estimates: Estimates, policies: Iterable[str], metrics: Iterable[Metric[T]]
) -> dict[str, dict[str, Measurement]]:
    return {
        name: {
            metric.name: estimates[MODEL, metric.name].minus(estimates[name, metric.name]).measurement()
            for metric in metrics
        }
        for name in policies
        if name != MODEL
    }


def _weight_diagnostics(policy: PolicyOnExamples, max_weight: float) -> tuple[float, list[str]]:
    """Returns Kish's size of the weights `truth / propensity`, or `truth · m` if none is known, and warnings."""
    examples = policy.examples
    weight_n = importance_weights(policy.truth_n, examples.uniform_n)
    warnings = [f"ips: {text}" for text in weight_warnings(weight_n, examples.uniform_n)]
    if np.isfinite(examples.propensity_n).any():
        weight_n = importance_weights(policy.truth_n, examples.propensity_n, max_weight)
        warnings += [f"ips_logged: {text}" for text in weight_warnings(weight_n, examples.propensity_n)]
    return effective_sample_size(weight_n), warnings


def _log_diagnostics(log: Log, max_weight: float) -> tuple[float, list[str]]:
    weight_n = log.weight_n(max_weight)
    warnings = weight_warnings(weight_n, log.logging_n) + overlap_warnings(log.weight_n(), log.logging_n)
    return effective_sample_size(weight_n), warnings


def _at_position(examples: Examples, position: int, estimates: Estimates) -> PositionResult:
    at_n = examples.position_n == position
    accuracy = estimates[MODEL, position].measurement()
    return PositionResult(
        position=position,
        examples=int(at_n.sum()),
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        random=float(examples.uniform_n[at_n].mean()),
    )
