"""The flags of jobs/train.py and jobs/sweep.py."""

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro
from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from artsel_ray.config import (
    DEFAULT_LIMITS,
    Count,
    ModelName,
    Positive,
    PromptSettings,
    RowLimits,
    Seed,
    Uri,
    check_weighting,
    settings,
)
from artsel_ray.errors import InputError

# A new training method is a module with such a function, from `trainers.TrainingTask` to a trainer, and a line here.
# Names, not functions: importing TRL would make --help slow.
METHODS = {
    "sft": "artsel_ray.train.sft:sft_trainer",
    "dpo": "artsel_ray.train.dpo:dpo_trainer",
    "choice": "artsel_ray.train.choice:choice_trainer",
}

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[tuple(METHODS)]
LearningRate = Annotated[float, Gt(0), Lt(math.inf)]
Rejected = Literal["uniform", "logged"]
Negatives = Literal["one", "all"]


@settings
class OptimizationSettings:
    """How a training runs, whatever it learns."""

    epochs: Positive = 1.0
    """Passes over the examples, unless --max-steps is given."""
    max_steps: Count | None = None
    """Optimizer steps, instead of --epochs."""
    batch_size: Count = 32
    """Examples per optimizer step, over all workers."""
    micro_batch: Count = 4
    """Examples per forward and backward pass of one worker; fewer need less memory."""
    group_size: Count = 8
    """Maximum number of a title's examples side by side, with candidates in one order: what their prompts share is
    computed once, and a group in one pass. At most half of --batch-size. 1 computes each prompt alone. No effect with
    --layout user_first, with images, and on models whose attention has windows or biases."""
    checkpoint_steps: Count = 200
    """Steps between two checkpoints, each with a validation."""
    lora_rank: Annotated[int, Ge(0)] = 16
    """Rank of LoRA; 0 trains all weights."""
    workers: Annotated[int, Ge(0)] = 1
    """Training processes; 0 trains in this process without Ray, on one GPU if there is one."""
    gpus_per_worker: Annotated[int, Ge(0), Le(1)] | None = None
    """GPUs for each worker: 1, or 0 for CPUs. Give 1 where GPU machines start on demand. Default: 1 if the cluster has
    GPUs, else 0."""
    fsdp: bool = False
    """Shard the model over the workers' GPUs (FSDP2): for models that do not fit on one GPU. Needs GPUs."""
    seed: Seed = 0
    """Seed of the order of examples, of shuffled and rejected candidates, and of LoRA's initial weights."""

    @model_validator(mode="after")
    def _batch_fits_workers(self) -> Self:
        at_once = self.micro_batch * max(self.workers, 1)
        if self.batch_size % at_once:
            raise InputError(
                f"--batch-size is {self.batch_size}; it must be a multiple of --micro-batch times --workers, {at_once}"
            )
        if self.fsdp and self.workers < 2:
            raise InputError(f"--fsdp needs at least 2 workers, and --workers is {self.workers}; raise it")
        return self


@settings
class LearningSettings:
    """What is learned from the examples."""

    reason: bool = False
    """Learn to write the examples' rationale first; implied by an earlier training that did."""
    validation_size: Count = 1_000
    """Maximum number of validation examples at each checkpoint."""
    shuffle_candidates: bool = False
    """Show the candidates in a new order in every epoch, against position bias."""
    rejected: Rejected = "uniform"
    """With dpo, the rejected candidate: any other one, or one that was probably shown, drawn by the mean propensity
    that the title's examples log for each artwork."""
    negatives: Negatives = "one"
    """With dpo, what the engaged artwork is preferred to: one rejected candidate, or all others at once, on what `rank`
    scores with (softmax DPO)."""
    prior: Uri | None = None
    """With choice, what is known already: a folder with train/ and validation/, predictions of another model with all
    candidates' probabilities, such as predictions/ of jobs/baseline.py --folds. The model learns what the prior does
    not know. How much each of the two counts is fitted on validation, for known and new titles apart."""
    prior_in_loss: bool = True
    """With --prior, learn on top of it. Off, the model learns alone, and only the weights are fitted."""
    beta: Positive = 0.1
    """Beta of DPO: higher values keep the model closer to the reference."""
    max_model_length: Annotated[int, Ge(64)] = 16_384
    """Maximum length of an example, in tokens; longer ones lose their oldest history."""
    weight_by_propensity: bool = False
    """Weight each example by the inverse of its logged propensity, so that the model learns what users engage with and
    not what the log showed. Every example needs a propensity."""
    max_weight: Positive | None = None
    """With --weight-by-propensity, the largest weight, where 1 is that of an example of a uniform log. Default: 10."""

    @model_validator(mode="after")
    def _weighs(self) -> Self:
        check_weighting(self.weight_by_propensity, self.max_weight)
        return self


@settings
class TrainConfig:
    """Post-trains a model on examples with LoRA, on Ray Train. Run again to resume from the last checkpoint."""

    method: Method
    """sft: learn to write the engaged artwork. dpo: prefer it to another candidate. choice: learn to choose it among
    the candidates, which is what `--decoding rank` scores with."""
    examples: Uri
    """Folder with train/ and validation/, such as data/examples: a path or URI."""
    model: ModelName
    """'smollm2' (bundled), a hub id, a local path, or the output of an earlier training, whose prompt is kept."""
    output: Uri
    """Where adapter/, spec.json, README.md and summary.json go (merged/ instead of adapter/, if all weights are
    trained): a path or URI."""
    image_root: tuple[Uri, ...] = ()
    """With --assets image, folders or URIs that the examples' images may be read from, such as world/artworks; only
    images below --examples are without it."""
    learning_rate: LearningRate = 1e-5
    """Peak learning rate, reached with the last of the warmup steps."""
    optimization: OptimizationSettings = OptimizationSettings()
    learning: LearningSettings = LearningSettings()
    prompt: PromptSettings = PromptSettings()
    limits: RowLimits = DEFAULT_LIMITS
    export_merged: bool = False
    """Also write merged/, for other tools: the complete model in the base's number format. Not written if that format
    loses more than 5 % of what LoRA has changed."""

    @model_validator(mode="after")
    def _method_knows_its_flags(self) -> Self:
        if self.learning.negatives == "all" and self.method != "dpo":
            raise InputError(f"--negatives all is a kind of dpo, and --method is {self.method}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _prior_is_for_choice(self) -> Self:
        if self.learning.prior and self.method != "choice":
            raise InputError(f"--prior is for --method choice, and --method is {self.method}; leave one of them out")
        if self.learning.prior and self.optimization.fsdp:
            raise InputError(
                "--prior fits its weights with the complete model, and --fsdp shards it; leave one of them out"
            )
        if not self.learning.prior_in_loss and not self.learning.prior:
            raise InputError("--no-prior-in-loss is for --prior; add it, or leave --no-prior-in-loss out")
        return self

    @model_validator(mode="after")
    def _output_keeps_checkpoints(self) -> Self:
        if self.optimization.workers == 0 and ("://" in self.output or self.output.startswith("file:")):
            raise InputError(
                f"--output is {self.output}; with --workers 0, which keeps its checkpoints there, it must be a local "
                "folder"
            )
        return self


@settings
class SweepConfig(TrainConfig):
    """Trains once for each learning rate, on Ray Tune, and keeps the model that is best on validation.

    Run again to resume: finished trials are kept, others continue from their last checkpoint.
    """

    output: Uri
    """Where best/ (with --export-merged also best/merged/), trials/, trials.parquet, report.html and tune/ (for
    TensorBoard) go: a path or URI."""
    learning_rate: tyro.conf.Suppress[LearningRate] = 1e-5
    learning_rates: tuple[LearningRate, ...] = (1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4)
    """Peak learning rates to try; the default is the paper's."""
    asha: bool = False
    """Stop a trial early when it is behind the others at the same step (ASHA)."""
    concurrent: Count | None = None
    """Number of concurrent trials. Default: as many as the cluster's GPUs (or CPUs, without GPUs) allow."""

    @model_validator(mode="after")
    def _trials_fit(self) -> Self:
        rates = self.learning_rates
        if not rates or len(set(rates)) < len(rates):
            listed = " ".join(map(str, rates))
            raise InputError(f"--learning-rates is '{listed}'; it must be one or more different numbers")
        if self.optimization.workers < 1:
            raise InputError("--workers is 0; a sweep runs on Ray and needs 1 or more for each trial")
        return self
