"""Several policies side by side: every metric with its interval, the model against the others, and warnings.

Suffixes: n examples or impressions, r runs (one order of the candidates each).
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation import off_policy
from artsel_ray.evaluation.bootstrap import Estimate, Measurement, bootstrap
from artsel_ray.evaluation.examples import UNKNOWN, Examples, IntArray, PolicyOnExamples
from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS, Metric, T, summary_metrics
from artsel_ray.evaluation.off_policy import Log, Terms, importance_weights, weight_warnings

MODEL = "model"
"""Name of the policy that the others are references for."""

Key = tuple[str, object]
"""A policy, and a metric's name or a position."""
Measurements = dict[str, Measurement]
"""By metric."""
Comparison = Callable[[Estimate, Estimate], Estimate]


@dataclass(frozen=True)
class EstimateSettings:
    """How estimates and their intervals are computed."""

    resamples: int
    seed: int
    max_weight: float = math.inf
    """Clipping limit of importance weights by logged propensities."""


@dataclass(frozen=True)
class PolicyResult:
    """What one policy is worth."""

    metrics: Measurements
    effective_sample_size: float
    """Kish's size of the importance weights."""
    warnings: list[str]


@dataclass(frozen=True)
class PositionResult:
    """The model's accuracy, with its 95 % interval, where the engaged artwork stands at one position."""

    position: int
    """0-based."""
    examples: int
    accuracy: float | None
    low: float | None
    high: float | None
    random: float
    """Accuracy of a random draw, the mean of 1/m."""


@dataclass(frozen=True)
class ExampleResults:
    """Policies on examples. The model is compared with every other policy, paired by resample."""

    policies: dict[str, PolicyResult]
    relative: dict[str, Measurements]
    """For each other policy and metric of the summary, how many percent the model is above it."""
    difference: dict[str, Measurements]
    """For each other policy and metric, model - policy."""
    by_position: list[PositionResult]


@dataclass(frozen=True)
class LogResults:
    """Policies on a log of impressions, in rewards per impression."""

    impressions: int
    logged: Measurement
    """Mean reward of the logging policy."""
    policies: dict[str, PolicyResult]
    difference: dict[str, Measurements]
    """For each other policy and metric, model - policy, paired by resample."""


@dataclass(frozen=True)
class PermutedChoices:
    """What R runs, each with another order of the candidates, chose in N examples."""

    choice_rn: IntArray
    """The chosen artwork, by any numbering; `UNKNOWN` where a run has none."""
    hit_rn: NDArray[np.bool_]
    chosen_rn: IntArray
    """0-based position at which it was shown, or `UNKNOWN`."""
    truth_rn: IntArray
    """0-based position at which the engaged artwork was shown, or `UNKNOWN`."""


@dataclass(frozen=True)
class PositionPreference:
    """How often one 0-based position is chosen, and how accurate choices are with the engaged artwork there."""

    position: int
    examples: int
    """Number of choices, over all runs, with the engaged artwork at this position."""
    chosen: Measurement
    """Share of the choices among more than `position` candidates that fall on this position."""
    random: float
    """The same of a random draw, the mean of 1/m."""
    accuracy: Measurement


@dataclass(frozen=True)
class PositionBias:
    """`permutations` of metrics.json.

    If positions decide nothing, agreement is 1 and random orders choose every position as often as a random draw.
    """

    runs: int
    agreement: Measurement
    """How often two runs choose the same artwork, over all pairs of runs that both have a choice."""
    accuracy: Measurement
    by_place: list[PositionPreference]


def evaluate_policies(
    policies: Mapping[str, PolicyOnExamples], settings: EstimateSettings, title_n: IntArray | None = None
) -> ExampleResults:
    """Returns every metric of every policy, by name, and `MODEL`'s against the others'; all on the same examples.

    Intervals are over users; with each example's title, numbered from 0 without gaps, over users and titles.
    """
    model, examples = policies[MODEL], policies[MODEL].examples
    positions = np.unique(examples.position_n).tolist()

    def hits() -> Iterator[tuple[Key, Terms]]:
        for position in positions:
            at_n = (examples.position_n == position).astype(np.float64)
            yield (MODEL, position), Terms(model.truth_n * at_n, at_n)

    terms = itertools.chain(_terms(policies, METRICS, settings.max_weight), hits())
    estimates = bootstrap(terms, examples.user_n, settings.resamples, settings.seed, title_n)
    summary = summary_metrics(bool(examples.known_n.any()))
    return ExampleResults(
        policies={
            name: PolicyResult(_measured(estimates, name, METRICS), *_weight_diagnostics(policy, settings.max_weight))
            for name, policy in policies.items()
        },
        relative=_model_against(estimates, policies, summary, Estimate.percent_over),
        difference=_model_against(estimates, policies, METRICS, Estimate.minus),
        by_position=[_at_position(examples, position, estimates) for position in positions],
    )


def evaluate_log(logs: Mapping[str, Log], user_n: IntArray, settings: EstimateSettings) -> LogResults:
    """Returns the rewards that each policy would have got from a log of impressions, and those that were got.

    Args:
        logs: for each policy, `MODEL` among them, the same impressions, rewards and propensities as it sees them.
        user_n: each impression's user, numbered from 0 without gaps.
    """
    log = logs[MODEL]
    logged: tuple[Key, Terms] = (("", "logged"), Terms(log.reward_n * log.known_n, log.known_n))
    terms = itertools.chain([logged], _terms(logs, LOG_METRICS, settings.max_weight))
    estimates = bootstrap(terms, user_n, settings.resamples, settings.seed)
    for name, metric in ((name, metric) for name in logs for metric in LOG_METRICS if metric.plus):
        estimates[name, metric.name] = estimates[name, metric.name].plus(estimates[name, metric.plus])
    return LogResults(
        impressions=int(log.known_n.sum()),
        logged=estimates["", "logged"].measurement(),
        policies={
            name: PolicyResult(_measured(estimates, name, LOG_METRICS), *_log_diagnostics(seen, settings.max_weight))
            for name, seen in logs.items()
        },
        difference=_model_against(estimates, logs, LOG_METRICS, Estimate.minus),
    )


def without_direct_method(results: LogResults) -> LogResults:
    """Returns the results without what the reward model alone expects; DR corrects it by the log, and stays."""
    none = {"dm": Measurement(None, None, None)}
    policies = {name: replace(found, metrics=found.metrics | none) for name, found in results.policies.items()}
    return replace(results, policies=policies, difference={name: d | none for name, d in results.difference.items()})


def _terms(policies: Mapping[str, T], metrics: Iterable[Metric[T]], max_weight: float) -> Iterator[tuple[Key, Terms]]:
    for name, policy in policies.items():
        for metric in metrics:
            yield (name, metric.name), metric.terms(policy, max_weight)


def _measured(estimates: Mapping[Key, Estimate], policy: str, metrics: Iterable[Metric[T]]) -> Measurements:
    return {metric.name: estimates[policy, metric.name].measurement(metric.is_share) for metric in metrics}


def _model_against(
    estimates: Mapping[Key, Estimate], policies: Iterable[str], metrics: Iterable[Metric[T]], compared: Comparison
) -> dict[str, Measurements]:
    def against(name: str, metric: str) -> Measurement:
        return compared(estimates[MODEL, metric], estimates[name, metric]).measurement()

    others = [name for name in policies if name != MODEL]
    return {name: {metric.name: against(name, metric.name) for metric in metrics} for name in others}


def _weight_diagnostics(policy: PolicyOnExamples, max_weight: float) -> tuple[float, list[str]]:
    """Returns Kish's size of the weights `truth / propensity`, or `truth · m` if none is known, and warnings."""
    examples = policy.examples
    weight_n = importance_weights(policy.truth_n, examples.uniform_n)
    warnings = [f"ips: {text}" for text in weight_warnings(weight_n, examples.uniform_n)]
    if examples.known_n.any():
        weight_n = importance_weights(policy.truth_n, examples.logging_n, max_weight)
        warnings += [f"ips_logged: {text}" for text in weight_warnings(weight_n, examples.propensity_n)]
    return off_policy.effective_sample_size(weight_n), warnings


def _log_diagnostics(log: Log, max_weight: float) -> tuple[float, list[str]]:
    weight_n = log.weight_n(max_weight)
    warnings = weight_warnings(weight_n, log.logging_n) + off_policy.overlap_warnings(log.weight_n(), log.logging_n)
    return off_policy.effective_sample_size(weight_n), warnings


def _at_position(examples: Examples, position: int, estimates: Mapping[Key, Estimate]) -> PositionResult:
    uniform_n, accuracy = (
        examples.uniform_n[examples.position_n == position],
        estimates[MODEL, position].measurement(is_share=True),
    )
    random = float(uniform_n.mean())
    return PositionResult(position, len(uniform_n), accuracy.value, accuracy.low, accuracy.high, random)


def measure_position_bias(choices: PermutedChoices, examples: Examples, settings: EstimateSettings) -> PositionBias:
    """Returns how runs agree, and what positions they prefer, with intervals over users."""
    positions = range(int(choices.truth_rn.max(initial=UNKNOWN)) + 1)
    found = bootstrap(_order_terms(choices, examples, positions), examples.user_n, settings.resamples, settings.seed)
    return PositionBias(
        runs=len(choices.choice_rn),
        agreement=found["agreement", UNKNOWN].measurement(is_share=True),
        accuracy=found["accuracy", UNKNOWN].measurement(is_share=True),
        by_place=[
            PositionPreference(
                position=position,
                examples=int((choices.truth_rn == position).sum()),
                chosen=found["chosen", position].measurement(is_share=True),
                random=float((1 / examples.candidates_n[examples.candidates_n > position]).mean()),
                accuracy=found["accuracy", position].measurement(is_share=True),
            )
            for position in positions
        ],
    )


def _order_terms(choices: PermutedChoices, examples: Examples, positions: range) -> Iterator[tuple[Key, Terms]]:
    """Yields ratios by name and position; `UNKNOWN` for all positions together."""
    yield ("agreement", UNKNOWN), _agreement(choices.choice_rn)
    runs_n = np.full(len(examples.user_n), float(len(choices.choice_rn)))
    yield ("accuracy", UNKNOWN), Terms(choices.hit_rn.sum(0, dtype=float), runs_n)
    for position in positions:
        shown_rn = (choices.chosen_rn != UNKNOWN) & (examples.candidates_n > position)
        chosen_rn = choices.chosen_rn == position
        yield ("chosen", position), Terms(chosen_rn.sum(0, dtype=float), shown_rn.sum(0, dtype=float))
        at_rn = choices.truth_rn == position
        yield ("accuracy", position), Terms((at_rn & choices.hit_rn).sum(0, dtype=float), at_rn.sum(0, dtype=float))


def _agreement(choice_rn: IntArray) -> Terms:
    pairs = list(itertools.combinations(choice_rn, 2))
    both = [(a_n != UNKNOWN) & (b_n != UNKNOWN) for a_n, b_n in pairs]
    same = [(a_n == b_n) & both_n for (a_n, b_n), both_n in zip(pairs, both, strict=True)]
    return Terms(np.sum(same, axis=0, dtype=float), np.sum(both, axis=0, dtype=float))
