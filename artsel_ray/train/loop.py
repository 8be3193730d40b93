"""What one worker does: read, train with TRL, validate, export. Knows nothing of Ray."""

import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.fs as pafs
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import ADAPTER, MERGED, Model, load
from artsel_ray.models.spec import resolve_prompt_spec, write_spec
from artsel_ray.models.weights import copy_processor, model_length, prompt_tokenizer, read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.train.callbacks import ReportProgress, SealCheckpoints, StopAtNonFinite, Validate
from artsel_ray.train.examples import read_train, read_validation
from artsel_ray.train.settings import METHODS
from artsel_ray.train.trainers import Training, TrainingTask, compute_targets_only

# TRL's own files: its arguments are a pickle, its card knows nothing of this project.
_NOT_EXPORTED = {"training_args.bin", "README.md"}


@dataclass
class Fitted:
    """The result of a worker's training."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry for each time that something was logged, with its `step`."""
    error: str = ""
    """Why it was stopped, for the user; empty if it finished."""
    too_long: int = 0


def fit(
    training: Training, output_dir: str, checkpoint: str | None, callbacks: list[TrainerCallback],
    report: Callable[[str], None],
) -> Fitted:  # fmt: skip
    """Trains, and on the first worker exports the result to the training's output.

    Args:
        output_dir: local folder for checkpoints.
        checkpoint: local folder of the checkpoint to resume from.

    Raises:
        InputError: if the model, the examples or the checkpoint cannot be used.
    """
    disable_progress_bar()
    compute_targets_only()
    base, learning = load(training.model), training.learning
    spec = resolve_prompt_spec(base.spec, training.prompt, reason=learning.reason or None)
    prompts = prompt_tokenizer(base.path, spec)
    if prompts.tokenizer.pad_token_id is None:
        prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    model = _read_weights(training.model, base.path, is_frozen=training.optimization.lora_rank > 0)
    length = min(learning.max_model_length, model_length(base.path))
    train, validation = (storage.join(training.examples, split) for split in ("train", "validation"))
    examples = read_train(train, prompts, length, training.optimization.seed, learning.shuffle_candidates)
    held_out = read_validation(validation, prompts, length, learning.validation_size)
    # PEFT's trained rows and FSDP's sharded embeddings don't go together (torch 2.13, PEFT 0.21).
    rows = [] if training.optimization.fsdp else [prompts.option, prompts.option_end]
    rank = training.optimization.lora_rank
    lora = adapter.lora_config(model, rank, 2 * rank, rows) if rank else None
    make_trainer = pkgutil.resolve_name(METHODS[training.method])
    trainer = make_trainer(TrainingTask(training, examples, model, lora, output_dir))
    if lora:
        trained: Any = trainer.model
        adapter.let_fused_head_read_rows(trained.get_base_model())
    stop = StopAtNonFinite()
    own = [Validate(trainer, held_out, training.optimization.checkpoint_steps), stop, ReportProgress(report)]
    _run(trainer, [*own, SealCheckpoints(), *callbacks], checkpoint, training.output)
    if not stop.error:
        export(trainer, training, base, spec)
    trainer.accelerator.wait_for_everyone()
    return Fitted(trainer.state.log_history, stop.error, examples.too_long)


def _read_weights(name: str, path: Path, is_frozen: bool) -> PreTrainedModel:
    # Frozen weights may be bfloat16. Trained ones may not: small steps would be lost in 8 bits.
    is_half = torch.cuda.is_available() and is_frozen
    model = read_model(path, torch.bfloat16 if is_half else torch.float32)
    if model.base_model is model:
        raise InputError(
            f"{name} has no language model separate from its output layer, which training needs; take another model"
        )
    return model


def _run(trainer: Trainer, callbacks: list[TrainerCallback], checkpoint: str | None, output: str) -> None:
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError:
        raise InputError(
            f"a checkpoint in {output} holds more than tensors, which is never read; delete its checkpoints"
        ) from None


def export(trainer: Trainer, training: Training, base: Model, spec: PromptSpec) -> None:
    """Writes adapter/, merged/ and spec.json on the first worker; all call it, to gather a sharded model."""
    has_adapter = training.optimization.lora_rank > 0
    with TemporaryDirectory() as scratch:
        saved, merged = Path(scratch, ADAPTER), Path(scratch, MERGED)
        trainer.save_model(str(saved if has_adapter else merged))
        if not trainer.is_world_process_zero():
            return
        if has_adapter:
            adapter.merge(base.path, saved, merged)
            adapter.name_base(saved, training.model)
            _upload(saved, storage.join(training.output, ADAPTER))
        copy_processor(base.path, merged)
        _upload(merged, storage.join(training.output, MERGED))
    write_spec(training.output, spec)


def _upload(folder: Path, uri: str) -> None:
    fs, path = storage.filesystem(uri)
    fs.create_dir(path, recursive=True)
    for file in sorted(folder.iterdir()):
        if file.name not in _NOT_EXPORTED:
            pafs.copy_files(str(file), f"{path}/{file.name}", pafs.LocalFileSystem(), fs)
