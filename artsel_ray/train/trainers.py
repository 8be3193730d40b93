"""What all methods share on TRL: the task, the order of examples, arguments, and rendering batch by batch."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import get_length_grouped_indices

from artsel_ray.config import PromptSettings
from artsel_ray.data.checks import require_propensities
from artsel_ray.engines.torch import without_peft
from artsel_ray.errors import InputError, one_line
from artsel_ray.evaluation.examples import FloatArray
from artsel_ray.evaluation.held_out import MAX_WEIGHT, training_weights
from artsel_ray.models.adapter import let_fused_head_read_rows
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.settings import LearningSettings, Method, OptimizationSettings

# Tokens on which a model's loss is compared with its own forward pass, and the relative error of floats and halves.
_PROBE_TOKENS, _TOLERANCE = 16, (1e-5, 0.015)

MLFLOW = "MLFLOW_TRACKING_URI"  # the environment variable with MLflow's address, as MLflow names it

WEIGHT = "weight"  # a batch's tensor of weights, one for each row


@dataclass(frozen=True)
class Training:
    """What the workers train, and where its result goes; the fields are those of `TrainConfig`."""

    method: Method
    examples: str
    model: str
    output: str
    learning_rate: float
    optimization: OptimizationSettings
    learning: LearningSettings
    prompt: PromptSettings


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

    def order(self, length_n: Sequence[int]) -> "Order":
        """Returns the order of examples with these lengths, in tokens."""
        return Order(length_n, self.training.optimization.batch_size, self.training.optimization.seed)


class Order(Sampler[int]):
    """The order of an epoch: random, but with examples of similar length side by side, so that little is padded.

    It depends on seed and epoch alone, so that a resumed run has the order of an uninterrupted one. (The Trainer's own
    `group_by_length` draws from torch's global generator instead, whose state a resumed run has not.)
    """

    def __init__(self, length_n: Sequence[int], batch_size: int, seed: int) -> None:
        self._length_n, self._batch_size, self._seed = list(length_n), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._length_n)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        yield from get_length_grouped_indices(self._length_n, self._batch_size, generator=generator)


class RendersItself:
    """Mixed into a TRL trainer whose collator turns indices into token ids: TRL has nothing to prepare or to shuffle.

    `_` begins what is private to TRL 1.16 and transformers 5.19; tests/train/test_trainers.py fails when they change.
    """

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
        check_fused_head(self.model, task.training.model)  # type: ignore[attr-defined]

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


def arguments(training: Training, output_dir: str) -> dict[str, Any]:
    """Returns the training arguments that all methods share; `output_dir` is a local folder for checkpoints."""
    on_gpu, flags = torch.cuda.is_available(), training.optimization
    return {
        "per_device_train_batch_size": flags.micro_batch,
        "gradient_accumulation_steps": flags.batch_size // (flags.micro_batch * max(flags.workers, 1)),
        "num_train_epochs": flags.epochs, "max_steps": -1 if flags.max_steps is None else flags.max_steps,
        "learning_rate": training.learning_rate, "warmup_steps": 0.03, "lr_scheduler_type": "cosine",
        "seed": flags.seed, "max_length": None, "remove_unused_columns": False, "dataloader_num_workers": 0,
        "bf16": on_gpu, "use_cpu": not on_gpu, "fsdp": flags.fsdp or None, "ddp_find_unused_parameters": False,
        # Not FSDP's own activation checkpointing: it renames modules, and PEFT then saves an empty adapter.
        "gradient_checkpointing": on_gpu,
        "output_dir": output_dir, "eval_strategy": "no", "save_strategy": "no", "save_total_limit": 2,
        "logging_steps": 1, "logging_nan_inf_filter": False, "disable_tqdm": True,
        "report_to": ["mlflow"] if os.environ.get(MLFLOW) else [],
        "run_name": training.output.partition("?")[0].rstrip("/").rpartition("/")[2],
    }  # fmt: skip
