"""The tables of metrics: metrics.json, the report, the terminal and docs/evaluation.md follow from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from artsel_ray.evaluation import off_policy
from artsel_ray.evaluation.examples import PolicyOnExamples
from artsel_ray.evaluation.off_policy import Log, Terms, ips, snips

T = TypeVar("T")


@dataclass(frozen=True)
class Metric(Generic[T]):
    """One number for a policy, from a `PolicyOnExamples` or from a `Log`."""

    name: str
    """Key in metrics.json."""
    heading: str
    """Column heading in the report; a line break is one there too."""
    formula: str
    """As docs/evaluation.md has it, in Markdown."""
    description: str
    terms: Callable[[T, float], Terms]
    """Returns the ratio of sums, given the policy and the clipping limit of importance weights."""
    plus: str | None = None
    """Name of a metric of the same table that is added to the ratio."""
    is_headline: bool = False
    """Whether the terminal shows it; on examples also whether it is given in percent of the references."""
    is_share: bool = False
    """Whether it is in [0, 1] by construction: at 0 and 1 it has Wilson's interval."""
    needs_propensity: bool = False
    """Whether it is defined only where examples have logged propensities."""


def _dm(policy: PolicyOnExamples, max_weight: float) -> Terms:
    expected_n = np.full(len(policy.truth_n), np.nan) if policy.expected_n is None else policy.expected_n
    return off_policy.direct_method(policy.examples.candidates_n * expected_n, policy.examples.uniform_n)


# ips and snips take π0 as uniform over the title's candidates, as the paper does; such weights are never clipped.
METRICS: tuple[Metric[PolicyOnExamples], ...] = (
    Metric("snips_logged", "SNIPS\nlogged π", r"Σ 1{chosen = a\*} ÷ p, divided by Σ 1 ÷ p, the logged propensity",
           "engagement with the model's choices; compare it with random choice's value. The headline where examples "
           "have propensities",
           lambda policy, max_weight: snips(policy.truth_n, policy.examples.logging_n, max_weight),
           is_headline=True, is_share=True, needs_propensity=True),
    Metric("ips_logged", "IPS\nlogged π", r"mean of 1{chosen = a\*} ÷ p, the logged propensity",
           "the same without normalization: 1 is the logging policy's engagement",
           lambda policy, max_weight: ips(policy.truth_n, policy.examples.logging_n, max_weight),
           is_headline=True, needs_propensity=True),
    Metric("accuracy", "Accuracy", r"mean of 1{chosen = a\*}", "how often the chosen artwork is the engaged one",
           lambda policy, _: Terms(policy.truth_n, np.ones(len(policy.truth_n))), is_headline=True,
           is_share=True),
    Metric("ips", "IPS\nuniform π (paper)", r"mean of 1{chosen = a\*} · m",
           "the same, but a hit among 40 candidates counts ten times a hit among 4; random choice has 1. The paper's "
           "main metric", lambda policy, _: ips(policy.truth_n, policy.examples.uniform_n), is_headline=True),
    Metric("snips", "SNIPS\nuniform π", r"Σ 1{chosen = a\*} · m ÷ Σ m",
           "`ips` normalized by its weights: less variance, some bias",
           lambda policy, _: snips(policy.truth_n, policy.examples.uniform_n), is_share=True),
    Metric("dm", "DM\nuniform π", "mean of q̂(chosen) · m",
           "the value of `ips` that the baseline's probabilities q̂ predict; null unless they predict better than 1/m. "
           "It favors the baseline, whose own model it is", _dm),
)  # fmt: skip
"""Metrics on examples, in the order of metrics.json."""

LOG_METRICS: tuple[Metric[Log], ...] = (
    Metric("ips", "IPS", "mean of w · r", "propensities are right and there is no warning; the widest intervals",
           off_policy.log_ips, is_headline=True),
    Metric("snips", "SNIPS", "Σ w · r ÷ Σ w", "the same; narrower if weights vary, with a bias of O(1/N)",
           off_policy.log_snips),
    Metric("dm", "Direct method", "mean of Σₐ π(a) · r̂(a)",
           "the reward model is right; its interval ignores the model's error", off_policy.log_dm),
    Metric("dr", "Doubly robust", "mean of Σₐ π(a) · r̂(a) + w · (r - r̂)",
           "propensities *or* model are right; narrower than IPS if the model explains rewards",
           off_policy.log_dr, is_headline=True),
    Metric("sndr", "Self-normalized\nDR", "`dm` + Σ w · (r - r̂) ÷ Σ w", "the same; use it if weights vary a lot",
           off_policy.log_residual, plus="dm"),
)  # fmt: skip
"""Metrics on a log of all impressions, in the order of metrics.json. The descriptions say when to trust each."""


def headline(has_propensities: bool) -> str:
    """Returns the name of the metric on examples that decides: the one that does not reward repeating the log."""
    return "snips_logged" if has_propensities else "ips"


def summary_metrics(has_propensities: bool) -> list[Metric[PolicyOnExamples]]:
    """Returns the metrics on examples that the terminal and the report's summary show."""
    return [metric for metric in METRICS if metric.is_headline and (has_propensities or not metric.needs_propensity)]
