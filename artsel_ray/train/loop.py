"""What one worker does: read, train with TRL, validate, export. Knows nothing of Ray."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.models.spec import resolve_prompt_spec
from artsel_ray.models.weights import prompt_tokenizer, read_model
from artsel_ray.train.callbacks import ReportProgress, SealCheckpoints, StopAtNonFinite, Validate
from artsel_ray.train.export import Export, export
from artsel_ray.train.methods import METHODS
from artsel_ray.train.reading import read_train, read_validation
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import Optimization, TrainingTask, compute_targets_only


@dataclass
class Fitted:
    """The result of a worker's training."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry for each time that something was logged, with its `step`."""
    error: str = ""
    """Why it was stopped, for the user; empty if it finished."""
    too_long: int = 0
    """Number of examples left out because they don't fit the model."""


def fit(
    config: TrainConfig,
    output_dir: str,
    checkpoint: str | None,
    callbacks: list[TrainerCallback],
    report: Callable[[str], None],
) -> Fitted:
    """Trains, and on the first worker exports the result to `config.output`.

    Args:
        output_dir: local folder for checkpoints.
        checkpoint: local folder of the checkpoint to resume from.
        callbacks: more callbacks of the trainer, called after validation.
        report: shows a line to the user; called on the first worker.

    Raises:
        InputError: if the model, the examples or the checkpoint cannot be used.
    """
    disable_progress_bar()
    compute_targets_only()
    base = load(config.model)
    spec = resolve_prompt_spec(base.spec, config.prompt, reason=config.reason or None)
    prompts = prompt_tokenizer(base.path, spec)
    if prompts.tokenizer.pad_token_id is None:
        prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    model = _read_weights(config.model, base.path, is_frozen=config.lora_rank > 0)
    length = min(config.max_model_length, model.config.get_text_config().max_position_embeddings)
    train, validation = (storage.join(config.examples, split) for split in ("train", "validation"))
    examples = read_train(train, prompts, length, config.seed, config.shuffle_candidates)
    held_out = read_validation(validation, prompts, length, config.validation_size)
    # PEFT's trained rows and FSDP's sharded embeddings don't go together (torch 2.13, PEFT 0.21).
    rows = [] if config.fsdp else [prompts.option, prompts.option_end]
    lora = adapter.lora_config(model, config.lora_rank, 2 * config.lora_rank, rows) if config.lora_rank else None
    task = TrainingTask(examples, model, lora, _optimization(config, output_dir), config.beta, config.rejected)
    trainer = METHODS[config.method](task)
    if lora:
        trained: Any = trainer.model
        adapter.let_fused_head_read_rows(trained.get_base_model())
    stop = StopAtNonFinite()
    own = [Validate(trainer, held_out, config.checkpoint_steps), stop, ReportProgress(report), SealCheckpoints()]
    _run(trainer, [*own, *callbacks], checkpoint, config.output)
    if not stop.error:
        export(trainer, Export(config.output, base, config.model, spec, lora is not None))
    trainer.accelerator.wait_for_everyone()
    return Fitted(trainer.state.log_history, stop.error, examples.too_long)


def _read_weights(name: str, path: Path, is_frozen: bool) -> PreTrainedModel:
    """Reads the weights to train, or those to train an adapter on."""
    # Frozen weights may be bfloat16. Trained ones may not: small steps would be lost in 8 bits.
    is_half = torch.cuda.is_available() and is_frozen
    model = read_model(path, torch.bfloat16 if is_half else torch.float32)
    if model.base_model is model:
        raise InputError(
            f"{name} has no language model separate from its output layer, which training needs; take another model"
        )
    return model


def _optimization(config: TrainConfig, output_dir: str) -> Optimization:
    return Optimization(
        output_dir=output_dir,
        run_name=config.output.partition("?")[0].rstrip("/").rpartition("/")[2],
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        max_steps=config.max_steps,
        batch_size=config.batch_size,
        micro_batch=config.micro_batch,
        workers=max(config.workers, 1),
        fsdp=config.fsdp,
        seed=config.seed,
    )


def _run(trainer: Trainer, callbacks: list[TrainerCallback], checkpoint: str | None, output: str) -> None:
    """Trains to the end, or until a callback stops it."""
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError:
        raise InputError(
            f"a checkpoint in {output} holds more than tensors, which is never read; delete its checkpoints"
        ) from None
