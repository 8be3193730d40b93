"""A prior in training: choices on top of it, and how much model and prior count, fitted on validation."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import RowLimits
from artsel_ray.data.priors import Prior, read_prior
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.decoding.fusion import fit_weights, fused, log_probabilities
from artsel_ray.engines.base import NOT_A_NUMBER
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import PriorWeights
from artsel_ray.train.examples import TrainingExamples


def read_priors(uri: str | None, limits: RowLimits) -> tuple[Prior | None, Prior | None]:
    """Returns the priors of train and validation.

    Raises:
        InputError: if one is absent, or has predictions without the probabilities of all candidates.
    """
    if uri is None:
        return None, None
    return read_prior(storage.join(uri, "train"), limits), read_prior(storage.join(uri, "validation"), limits)


def notices(train: TrainingExamples, validation: TrainingExamples) -> list[str]:
    """Returns what a user should know about priors that do not fit the examples.

    Raises:
        InputError: if a prior knows no example.
    """
    found = []
    for examples in (train, validation):
        if examples.without_prior == len(examples):
            raise InputError(f"--prior knows none of the pairs of {examples.uri}; was it made from these examples?")
        if examples.without_prior:
            missing = f"{examples.without_prior:,} of {len(examples):,} examples of {examples.uri}"
            found.append(f"warning: --prior does not know {missing}; there all candidates are equal before the model")
    ll_train, ll_validation = (_mean_log(examples) for examples in (train, validation))
    if ll_train > 0.5 * ll_validation:
        known = f"{-ll_train:.3f} per train example, {-ll_validation:.3f} per validation example"
        found.append(
            f"warning: --prior is far better on train than on validation (-log p: {known}): it has seen the train "
            "examples, so that nothing is left to learn from them; give one that has not, as baseline --folds writes"
        )
    return found


def _mean_log(examples: TrainingExamples) -> float:
    pairs = zip(examples.prior_n, examples.label_n, strict=True)
    return float(np.mean([prior_m[label] for prior_m, label in pairs]))


@dataclasses.dataclass
class ChooserWithPrior:
    """Chooses by a model's and a prior's log-probabilities, added with weights."""

    weights: PriorWeights

    def __call__(self, engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int]) -> list[int]:
        """Returns the most likely candidate of each example."""
        return self._chosen(examples, indices, _ranked(engine, examples, indices))

    def _chosen(
        self, examples: TrainingExamples, indices: Sequence[int], ranked: list[NDArray[np.float64]]
    ) -> list[int]:
        chosen = []
        for index, log_m in zip(indices, ranked, strict=True):
            weights = self.weights.of(examples.title_ids[index])
            chosen.append(int(fused(np.stack([log_m, examples.prior_n[index]]), weights).argmax()))
        return chosen


class FittingChooser(ChooserWithPrior):
    """Fits the weights on all workers' examples, and then chooses with them."""

    def __call__(self, engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int]) -> list[int]:
        """Returns the most likely candidate of each example; all workers call it once, with their own examples.

        Raises:
            InputError: if the model answers with NaN, on all workers.
        """
        try:
            ranked = _ranked(engine, examples, indices)
        except InputError:  # the others wait
            ranked = [np.full(len(examples.prior_n[index]), np.nan) for index in indices]
        everyone = sorted(gather_object(list(zip(indices, ranked, strict=True))), key=lambda pair: pair[0])
        if any(np.isnan(log_m).any() for _, log_m in everyone):
            raise InputError(NOT_A_NUMBER)
        numbers = [index for index, _ in everyone]
        known, new = fit_weights(
            [log_m for _, log_m in everyone],
            [examples.prior_n[index] for index in numbers],
            [examples.label_n[index] for index in numbers],
            [examples.title_ids[index] in self.weights.known_titles for index in numbers],
        )
        self.weights = dataclasses.replace(self.weights, known=known, new=new)
        return self._chosen(examples, indices, ranked)


def describe_weights(weights: PriorWeights) -> str:
    """Returns how much model and prior count, in words."""
    known, new = ("{:.2f} and {:.2f}".format(*each) for each in (weights.known, weights.new))
    return f"model and prior count {known} for known titles, {new} for new ones"


def _ranked(engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int]) -> list[NDArray[np.float64]]:
    """Returns the log-probabilities of each example's candidates."""
    if not indices:
        return []
    prompts, answers = [examples.prompt(i) for i in indices], [examples.answers(i) for i in indices]
    found = DECODERS["rank"].decode(engine, Questions(examples.tokenizer, prompts, answers)).distributions
    assert found is not None
    return [log_probabilities(each) for each in found]
