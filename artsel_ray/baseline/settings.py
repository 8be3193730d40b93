"""The flags of jobs/baseline.py."""

from typing import Annotated, Self

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from artsel_ray.config import (
    DEFAULT_LIMITS,
    Count,
    ModelName,
    Positive,
    RowLimits,
    Seed,
    Share,
    Uri,
    check_weighting,
    settings,
)
from artsel_ray.errors import InputError


@settings
class BaselineConfig:
    """Trains the non-LLM reference network, on CPU workers of Ray Train.

    A user tower (history) and an artwork tower (caption, id), and popularity in train; with --encoder also a network
    over a language model's frozen vectors, for new titles. docs/baseline.md.
    """

    examples: Uri
    """Folder with train/, validation/ and test/, such as data/examples: a path or URI."""
    output: Uri
    """Where model/, predictions/{validation,test}/ (and train/ with --folds), summary.json and, last, _manifest.json
    go: a path or URI."""
    learning_rates: tuple[Annotated[float, Gt(0), Lt(100)], ...] = (2e-3, 5e-3)
    """Learning rates to try, each with each weight decay; the best on validation wins."""
    weight_decays: tuple[Annotated[float, Ge(0), Lt(100)], ...] = (0.01, 0.3)
    """Weight decays to try."""
    epochs: Count = 50
    """Maximum passes over the train examples; a trial stops after three that do not lower the validation loss."""
    batch_size: Count = 256
    """Examples per optimizer step, over all workers."""
    width: Count = 64
    """Length of the user and artwork vectors."""
    id_dropout: Share = 0.5
    """Share of artwork ids hidden in each training step, so that unknown artworks are judged by their captions."""
    encoder: ModelName | None = None
    """Adds a second network, over frozen vectors that this language model gives captions and names: it judges titles
    that were not in train. `smollm2`, a hub id, or a folder. Not trained, and slow the first time."""
    vectors: Uri | None = None
    """With --encoder, where its vectors are kept, so that each text is computed once for all runs: a path or URI.
    Default: _vectors/ in --output."""
    encoders: Count = 1
    """With --encoder, processes that compute vectors."""
    gpus_per_encoder: Annotated[float, Ge(0), Le(1000)] = 0.0
    """GPUs for each process that computes vectors; 0 is CPUs."""
    folds: Annotated[int, Ge(0), Le(100)] = 0
    """Also writes predictions/train/, for what is trained on top of this network: this many networks more, each of
    which predicts the titles that it was not trained on. 5 is usual; 0 writes none."""
    workers: Count = 1
    """Training processes, one CPU each."""
    weight_by_propensity: bool = False
    """Weight each example by the inverse of its logged propensity, so that the model learns what users engage with and
    not what the log showed. Every example needs a propensity."""
    max_weight: Positive | None = None
    """With --weight-by-propensity, the largest weight, where 1 is that of an example of a uniform log. Default: 10."""
    limits: RowLimits = DEFAULT_LIMITS
    seed: Seed = 0
    """Seed of the initial weights, the order of examples and the hidden ids: same seed, same predictions."""

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        check_weighting(self.weight_by_propensity, self.max_weight)
        if self.batch_size < self.workers:
            raise InputError(f"--batch-size is {self.batch_size}; it must be at least --workers, {self.workers}")
        if self.vectors and not self.encoder:
            raise InputError("--vectors is for --encoder; add it, or leave --vectors out")
        if self.folds == 1:
            raise InputError("--folds is 1; a network that has seen all titles predicts none of them fairly: take 5")
        for name in ("learning_rates", "weight_decays"):
            if not getattr(self, name):
                raise InputError(f"--{name.replace('_', '-')} is empty; give one or more numbers")
        return self
