"""The candidates that DPO rejects: which one, and the rationale that speaks for it."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from artsel_ray.train.examples import RATIONALE_STREAM, REJECTED_STREAM, TrainingExamples
from artsel_ray.train.settings import Rejected


class Rejections:
    """Draws each example's rejected candidate, by the example's seed, index and epoch alone."""

    def __init__(self, examples: TrainingExamples, method: Rejected) -> None:
        """Collects what the examples log about each title's candidates.

        Args:
            method: see `TrainConfig.rejected`.
        """
        self._examples, self._method = examples, method
        propensities: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self._rationales: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        columns = (examples.title_n, examples.label_n, examples.propensity_n, examples.rationale_n)
        for title, label, propensity, rationale in zip(*columns, strict=True):
            if np.isfinite(propensity):
                propensities[title, label].append(propensity)
            if rationale:
                self._rationales[title, label].append(rationale)
        self._mean_propensity = {key: float(np.mean(values)) for key, values in propensities.items()}

    def usable(self) -> list[int]:
        """Returns the indices of the examples whose title has another candidate."""
        examples = self._examples
        return [index for index, title in enumerate(examples.title_n) if len(examples.titles[title].contents) > 1]

    def draw(self, index: int, epoch: int) -> tuple[int, str | None]:
        """Returns the rejected candidate's index in its stored order, and what speaks for it.

        Its rationale was written for another example of the title, whose user engaged with that candidate. Where there
        is none it is the example's own, so that only the prediction differs.
        """
        examples = self._examples
        weights = self._weights(examples.title_n[index], examples.label_n[index])
        rng = np.random.default_rng([examples.seed, REJECTED_STREAM, epoch, index])
        rejected = int(rng.choice(len(weights), p=weights / weights.sum()))
        if not examples.tokenizer.spec.reason:
            return rejected, None
        rationales: Sequence[str] | None = self._rationales.get((examples.title_n[index], rejected))
        if not rationales:
            return rejected, examples.rationale_n[index]
        rng = np.random.default_rng([examples.seed, RATIONALE_STREAM, epoch, index])
        return rejected, rationales[int(rng.integers(len(rationales)))]

    def _weights(self, title: int, label: int) -> np.ndarray:
        """Returns how likely each of a title's candidates is rejected, up to a factor: [M]."""
        count = len(self._examples.titles[title].contents)
        weights = np.ones(count)
        if self._method == "logged":
            weights = np.array([self._mean_propensity.get((title, candidate), 0.0) for candidate in range(count)])
        weights[label] = 0.0
        if not weights.any():  # no other candidate of this title was ever logged
            weights = np.ones(count)
            weights[label] = 0.0
        return weights
