"""The flags of jobs/baseline.py."""

from typing import Annotated, Self

from annotated_types import Ge, Gt, Lt
from pydantic import model_validator

from artsel_ray.config import Count, Positive, Seed, Share, Uri, check_weighting, settings
from artsel_ray.errors import InputError


@settings
class BaselineConfig:
    """Trains the non-LLM reference network, on CPU workers of Ray Train.

    A user tower (history) and an artwork tower (caption, id), and popularity in train; docs/baseline.md.
    """

    examples: Uri
    """Folder with train/, validation/ and test/, such as data/examples: a path or URI."""
    output: Uri
    """Where model/, predictions/{validation,test}/, summary.json and, last, _manifest.json go: a path or URI."""
    learning_rates: tuple[Annotated[float, Gt(0), Lt(100)], ...] = (2e-3, 5e-3)
    """Learning rates to try, each with each weight decay; the best on validation wins."""
    weight_decays: tuple[Annotated[float, Ge(0), Lt(100)], ...] = (0.01, 0.3)
    """Weight decays to try."""
    epochs: Count = 10
    """Maximum passes over the train examples; a trial stops after three that do not lower the validation loss."""
    batch_size: Count = 1_024
    """Examples per optimizer step, over all workers."""
    width: Count = 64
    """Length of the user and artwork vectors."""
    id_dropout: Share = 0.5
    """Share of artwork ids hidden in each training step, so that unknown artworks are judged by their captions."""
    workers: Count = 1
    """Training processes, one CPU each."""
    weight_by_propensity: bool = False
    """Weight each example by the inverse of its logged propensity, so that the model learns what users engage with and
    not what the log showed. Every example needs a propensity."""
    max_weight: Positive | None = None
    """With --weight-by-propensity, the largest weight, where 1 is that of an example of a uniform log. Default: 10."""
    seed: Seed = 0
    """Seed of the initial weights, the order of examples and the hidden ids: same seed, same predictions."""

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        check_weighting(self.weight_by_propensity, self.max_weight)
        if self.batch_size < self.workers:
            raise InputError(f"--batch-size is {self.batch_size}; it must be at least --workers, {self.workers}")
        for name in ("learning_rates", "weight_decays"):
            if not getattr(self, name):
                raise InputError(f"--{name.replace('_', '-')} is empty; give one or more numbers")
        return self
