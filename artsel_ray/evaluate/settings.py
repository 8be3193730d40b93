"""The flags of jobs/evaluate.py."""

from typing import Self

from pydantic import model_validator

from artsel_ray.config import DEFAULT_LIMITS, Count, Positive, RowLimits, Seed, Uri, settings
from artsel_ray.errors import InputError


@settings
class EvaluateConfig:
    """Accuracy and off-policy estimates of predictions, with intervals, as metrics.json and report.html."""

    examples: Uri
    """Held-out examples: a path or URI, such as data/examples/test."""
    predictions: Uri
    """Output of jobs/score.py, or any Parquet of predictions."""
    output: Uri
    """Where metrics.json and report.html go: a path or URI."""
    baseline: Uri | None = None
    """Predictions to compare with, such as baseline/predictions/test. With every candidate's probability they are also
    the reward model of the direct method and of DR."""
    oracle: Uri | None = None
    """Oracle of a simulated world: adds the best possible result."""
    train: Uri | None = None
    """Examples to count engagements in, for the most-engaged-artwork reference. Default: ../train, if it exists."""
    impressions: Uri | None = None
    """Log of all impressions of predicted pairs, engaged or not: estimates each policy's engagement by IPS, SNIPS, DM
    and DR. Needs --baseline."""
    permutations: tuple[Uri, ...] = ()
    """Outputs of jobs/score.py for the same pairs with other values of --permutation, to measure position bias."""
    max_weight: Positive | None = None
    """Clip importance weights by logged propensities at this value: less variance, some bias. Default: not clipped."""
    resamples: Count = 2_000
    """Bootstrap resamples of users."""
    limits: RowLimits = DEFAULT_LIMITS
    seed: Seed = 0
    """Seed of the bootstrap."""

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        if self.impressions and not self.baseline:
            raise InputError("--impressions needs --baseline, whose probabilities are the reward model; add --baseline")
        return self
