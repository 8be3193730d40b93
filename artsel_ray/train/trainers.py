"""What all methods share on TRL: the task, the order of examples, arguments, and rendering batch by batch."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel

from artsel_ray.data.checks import require_propensities
from artsel_ray.engines.torch import without_peft
from artsel_ray.errors import InputError, one_line
from artsel_ray.evaluation.examples import FloatArray
from artsel_ray.evaluation.held_out import MAX_WEIGHT, training_weights
from artsel_ray.models.adapter import let_fused_head_read_rows
from artsel_ray.models.packed_attention import use_packed_attention
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.orders import GroupOrder, Order, SetEpoch
from artsel_ray.train.settings import OptimizationSettings
from artsel_ray.train.training import Training

# Tokens on which a model's loss is compared with its own forward pass, and the relative error of floats and halves.
_PROBE_TOKENS, _TOLERANCE = 16, (1e-5, 0.015)

MLFLOW = "MLFLOW_TRACKING_URI"  # the environment variable with MLflow's address, as MLflow names it

WEIGHT = "weight"  # a batch's tensor of weights, one for each row

# A linear warmup that starts above 0 and a cosine that ends at 1 % of the peak: no step leaves the weights as they are.
# With transformers' `cosine` the first step's rate is 0, with this schedule's own minimum of 0 the last one's.
SCHEDULE: dict[str, Any] = {
    "warmup_steps": 0.03, "lr_scheduler_type": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.01}
}  # fmt: skip


@dataclass(frozen=True)
class TrainingTask:
    """What a method makes a trainer from."""

    training: Training
    examples: TrainingExamples
    model: PreTrainedModel
    """With an adapter already, if an earlier one is trained further."""
    lora: LoraConfig | None
    """The new adapter; without one, what of the model is not frozen is trained."""
    output_dir: str
    """Local folder for checkpoints."""
    read_reference: Callable[[], PreTrainedModel] | None = None
    """Reads what DPO compares with, if it is not the model with its adapter off."""

    @property
    def pad_token_id(self) -> int:
        """Id that pads a batch."""
        return int(self.examples.tokenizer.tokenizer.pad_token_id)

    def weights(self, indices: Sequence[int]) -> FloatArray | None:
        """Returns the weight of each of these examples by its propensity, or None if all weigh the same.

        Raises:
            InputError: if an example has no propensity.
        """
        learning, examples = self.training.learning, self.examples
        if not learning.weight_by_propensity:
            return None
        require_propensities(examples.without_propensity)
        candidates_n = np.array([len(examples.answers(index)) for index in indices])
        propensity_n = np.array([examples.propensity_n[index] for index in indices])
        return training_weights(candidates_n, propensity_n, learning.max_weight or MAX_WEIGHT)

    def comparable(self) -> list[int]:
        """Returns the indices of the examples whose title has a candidate that reads differently from the engaged one.

        Raises:
            InputError: if there is none.
        """
        examples = self.examples
        usable = examples.comparable()
        if not usable and all(len(title.contents) == 1 for title in examples.titles):
            raise InputError(f"{examples.uri}: no title has two candidates, so there is none to reject; use sft")
        if not usable:
            same = "all candidates of each title read the same, so nothing can be learned"
            raise InputError(f"{examples.uri}: {same}; give them different captions")
        if left_out := len(examples) - len(usable):
            why = "every candidate of their title reads the same as the engaged one"
            examples.notices.append(f"warning: {left_out:,} of {len(examples):,} train examples are left out: {why}")
        return usable

    @property
    def group_size(self) -> int:
        """Number of a title's examples side by side; 1 where their prompts share nothing, or hold images."""
        flags, tokenizer = self.training.optimization, self.examples.tokenizer
        can_share = tokenizer.spec.layout == "title_first" and tokenizer.placeholders is None
        # A step sees two titles at least.
        return max(1, min(flags.group_size, flags.batch_size // 2)) if can_share else 1

    def order(self, indices: Sequence[int]) -> Order:
        """Returns the order of the examples with these indices, of which the dataset has its rows."""
        flags, examples = self.training.optimization, self.examples
        if self.group_size > 1:
            titles = [examples.title_n[index] for index in indices]
            return GroupOrder(indices, titles, self.group_size, flags.batch_size, flags.seed)
        return Order([examples.length_n[index] for index in indices], flags.batch_size, flags.seed)


class RendersItself:
    """Mixed into a TRL trainer whose collator turns indices into token ids: TRL has nothing to prepare or to shuffle.

    `_` begins what is private to TRL 1.16 and transformers 5.19; tests/train/test_trainers.py fails when they change.
    """

    shares_prompts = False
    """Whether an example has several rows that begin with its prompt, so that packing pays without groups."""

    def __init__(self, task: TrainingTask, args: Any, indices: Sequence[int], collator: Any, **more: Any) -> None:
        """Raises an InputError if the model cannot be trained with adapters, or its loss would not be its own."""
        # A process trains on one GPU: the Trainer would spread each batch over all that it sees (nn.DataParallel).
        args._n_gpu = min(args.n_gpu, 1)
        columns: dict[str, Any] = {"index": indices}
        if (weights := task.weights(indices)) is not None:
            columns[WEIGHT] = weights
        try:
            super().__init__(
                model=task.model, args=args, train_dataset=Dataset.from_dict(columns), data_collator=collator,
                processing_class=task.examples.tokenizer.tokenizer, peft_config=task.lora, **more,
            )  # type: ignore[call-arg]  # of the trainer that this is mixed into  # fmt: skip
        except ValueError as error:
            raise InputError(f"TRL and PEFT cannot train {task.training.model}: {one_line(error)}") from None
        self.order: Order = collator.order
        self.add_callback(SetEpoch(self.order))  # type: ignore[attr-defined]
        check_fused_head(self.model, task.training.model)  # type: ignore[attr-defined]
        collator.packs = self._packs(task)
        if task.training.optimization.group_size > 1 and (task.group_size == 1 or not collator.packs):
            task.examples.notices.append(f"--group-size has no effect: {_why_not(task)}; each prompt is computed alone")

    def _packs(self, task: TrainingTask) -> bool:
        """Makes the models that it computes take packed rows, if examples share a prompt, and tells whether they do."""
        if task.group_size == 1 and not self.shares_prompts:
            return False
        models = [self.model, getattr(self, "ref_model", None)]  # type: ignore[attr-defined]
        return all(use_packed_attention(without_peft(each)) for each in models if each is not None)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Scales the gradient of each row by its weight, which is the gradient of the weighted loss.

        TRL has no weights of rows. The loss that it returns, and logs, is the one without weights.
        """
        row_weights = inputs.pop(WEIGHT, None)
        if row_weights is None:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]  # of the TRL trainer

        def weighted(**arguments: Any) -> Any:
            outputs = model(**arguments)
            if outputs.log_probs.requires_grad:
                outputs.log_probs.register_hook(lambda gradient: gradient * row_weights[:, None].to(gradient))
            return outputs

        return super().compute_loss(weighted, inputs, *args, **kwargs)  # type: ignore[misc]  # of the TRL trainer

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, *_: Any) -> Order:
        return self.order


def _why_not(task: TrainingTask) -> str:
    if task.group_size > 1:
        return f"{task.training.model} cannot compute prompts that share their beginning"
    spec = task.examples.tokenizer.spec
    if spec.layout != "title_first":
        return f"with the layout {spec.layout}, a title's prompts do not begin alike"
    return "images are not shared" if spec.assets == "image" else "a step of one example has no group"


def row_weights(rows: list[dict[str, Any]], copies: int = 1) -> dict[str, torch.Tensor]:
    """Returns a batch's tensor of weights, for so many copies of its rows end to end; nothing if it has none."""
    if WEIGHT not in rows[0]:
        return {}
    return {WEIGHT: torch.tensor([row[WEIGHT] for row in rows] * copies, dtype=torch.float32)}


@torch.no_grad()
def check_fused_head(model: Any, name: str) -> None:
    """Raises an InputError unless TRL's fused head gives the log-probabilities of the model's own forward pass.

    It multiplies hidden states and the output embedding itself, and knows of biases, caps and scales of logits only by
    the names that some configs give them.
    """
    let_fused_head_read_rows(without_peft(model))
    ids, training = torch.arange(_PROBE_TOKENS, device=model.device)[None], model.training
    model.eval()
    is_half = model.dtype != torch.float32
    with torch.autocast(model.device.type, torch.bfloat16, enabled=is_half):  # as the trainer does
        fused = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.float()
        logits = model(input_ids=ids).logits[:, :-1].float()
    model.train(training)
    own = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    # A loss that is not finite stops the training at its first step, with another message.
    if own.isfinite().all() and float((fused - own).abs().max() / own.abs().max()) > _TOLERANCE[is_half]:
        raise InputError(
            f"{name} changes its logits in a way that training's loss leaves out (a bias, a cap or a scale); take "
            "another model"
        )


def compute_targets_only() -> None:
    """Makes TRL's fused head compute only the supervised positions on every device; loss and gradients are the same.

    TRL 1.16 does so on GPUs. Elsewhere it computes every position, because a compiled model would be compiled again for
    each number of them. Nothing is compiled here, and the head over 49,154 tokens was 96 % of a small Llama's time.
    """
    # Private; TRL 1.16 asks it here for nothing else. tests/train/test_trainers.py fails when it changes.
    trl.trainer.utils._use_triton = lambda device: True


def examples_per_pass(flags: OptimizationSettings, group_size: int) -> int:
    """Returns the examples of one forward and backward pass: --micro-batch, or up to a group where that is more.

    A group has fewer tokens than as many complete prompts.
    """
    share = flags.batch_size // max(flags.workers, 1)
    return max(count for count in range(1, max(flags.micro_batch, group_size) + 1) if share % count == 0)


def arguments(task: TrainingTask) -> dict[str, Any]:
    """Returns the training arguments that all methods share."""
    training = task.training
    on_gpu, flags = torch.cuda.is_available(), training.optimization
    at_once = examples_per_pass(flags, task.group_size)
    return {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": flags.batch_size // (at_once * max(flags.workers, 1)),
        "num_train_epochs": flags.epochs, "max_steps": -1 if flags.max_steps is None else flags.max_steps,
        "learning_rate": training.learning_rate, **SCHEDULE,
        "seed": flags.seed, "max_length": None, "remove_unused_columns": False, "dataloader_num_workers": 0,
        "bf16": on_gpu, "use_cpu": not on_gpu, "fsdp": flags.fsdp or None, "ddp_find_unused_parameters": False,
        # Not FSDP's own activation checkpointing: it renames modules, and PEFT then saves an empty adapter.
        "gradient_checkpointing": on_gpu,
        "output_dir": task.output_dir, "eval_strategy": "no", "save_strategy": "no", "save_total_limit": 2,
        "logging_steps": 1, "logging_nan_inf_filter": False, "disable_tqdm": True,
        "report_to": ["mlflow"] if os.environ.get(MLFLOW) else [],
        "run_name": training.output.partition("?")[0].rstrip("/").rpartition("/")[2],
    }  # fmt: skip
