"""What one worker does: read, train with TRL, validate, export. Knows nothing of Ray."""

import pickle
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.fs as pafs
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils.logging import disable_progress_bar

from artsel_ray import storage
from artsel_ray.engines.torch import load_torch_engine
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import ADAPTER, MERGED, Model, load
from artsel_ray.models.prior_weights import PriorWeights, write_prior_weights
from artsel_ray.models.spec import SPEC, resolve_prompt_spec, write_spec
from artsel_ray.models.weights import copy_processor, model_length, prompt_tokenizer, read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.train.callbacks import ReportProgress, SealCheckpoints, StopAtNonFinite, Validate
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.prior import ChooserWithPrior, FittingChooser, describe_weights, read_priors
from artsel_ray.train.prior import notices as prior_notices
from artsel_ray.train.reading import read_train
from artsel_ray.train.settings import METHODS
from artsel_ray.train.trainers import TrainingTask, compute_targets_only
from artsel_ray.train.training import Fitted, Training
from artsel_ray.train.validation import Chooser, choose, read_validation, validate

# TRL's own files: its arguments are a pickle, its card knows nothing of this project.
_NOT_EXPORTED = {"training_args.bin", "README.md"}
_FSDP_WEIGHTS = "pytorch_model_fsdp*"  # in a checkpoint of FSDP, as accelerate 1.15 names them


def fit(
    training: Training, output_dir: str, checkpoint: str | None, callbacks: list[TrainerCallback],
    report: Callable[[str], None],
) -> Fitted:  # fmt: skip
    """Trains, on the first worker exports the result to the training's output, and validates what was exported.

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
    prompts = prompt_tokenizer(base.base, spec)
    if prompts.tokenizer.pad_token_id is None:
        prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    length = min(learning.max_model_length, model_length(base.base))
    train, validation = (storage.join(training.examples, split) for split in ("train", "validation"))
    roots, limits = training.image_root, training.limits
    if learning.prior and spec.assets == "image":
        raise InputError("--prior is for captions, and the prompt shows images; leave --prior out")
    prior, held_out_prior = read_priors(learning.prior, limits)
    examples = read_train(
        train, prompts, length, training.optimization.seed, learning.shuffle_candidates, roots, limits, prior
    )
    held_out = read_validation(validation, prompts, length, learning.validation_size, roots, limits, held_out_prior)
    task = _task(training, base, examples, output_dir)
    trainer = pkgutil.resolve_name(METHODS[training.method])(task)
    stop = StopAtNonFinite()
    notices = examples.notices + held_out.notices + (prior_notices(examples, held_out) if prior else [])
    progress = ReportProgress(report, notices)
    chooser: Chooser = choose
    last_chooser = None
    if prior and held_out_prior:
        both = (1.0, 1.0 if learning.prior_in_loss else 0.0)
        weights = PriorWeights(both, both, frozenset(examples.title_ids), tuple(held_out_prior.model_ids))
        chooser, last_chooser = ChooserWithPrior(weights), FittingChooser(weights)

    def report_and_keep(line: str) -> None:
        notices.append(line)
        report(line)

    own = [Validate(trainer, held_out, training.optimization.checkpoint_steps, chooser), stop, progress]
    last = _ExportAndValidate(trainer, training, base, held_out, stop, last_chooser, report_and_keep)
    _run(trainer, [*own, SealCheckpoints(), *callbacks], last, checkpoint, training.output)
    return Fitted(trainer.state.log_history, stop.error, examples.too_long, notices)


def _task(training: Training, base: Model, examples: TrainingExamples, output_dir: str) -> TrainingTask:
    optimization, tokenizer = training.optimization, examples.tokenizer
    rank, lora, read_reference = optimization.lora_rank, None, None
    # PEFT's trained rows and FSDP's sharded embeddings don't go together (torch 2.13, PEFT 0.21).
    rows = [] if optimization.fsdp else [tokenizer.option, tokenizer.option_end]
    model: Any = _read_weights(training.model, base.base if rank else base.path, is_frozen=rank > 0)
    if rank and base.lora:
        if optimization.fsdp and base.has_trained_rows:
            raise InputError(f"--fsdp trains no option tokens' rows, and the adapter of {training.model} has some; "
                             "leave --fsdp out, or start from a model without an adapter")  # fmt: skip
        model, earlier = adapter.continued(model, base.lora, rows), adapter.rank_of(base.lora)
        read_reference = partial(_read_trained, training.model, base)
        if rank != earlier:
            own = f"the adapter of {training.model} is trained further, so that --lora-rank is its own: {earlier}"
            examples.notices.append(own)
    elif rank:
        lora = adapter.lora_config(model, rank, 2 * rank, rows)
    return TrainingTask(training, examples, model, lora, output_dir, read_reference)


class _ExportAndValidate(TrainerCallback):
    """At the end of a training that was not stopped, exports the model and validates what was exported."""

    def __init__(
        self, trainer: Trainer, training: Training, base: Model, examples: TrainingExamples, stop: StopAtNonFinite,
        fitting: FittingChooser | None, report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._trainer, self._training, self._base, self._examples, self._stop = trainer, training, base, examples, stop
        self._fitting, self._report = fitting, report

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called after the last checkpoint."""
        if self._stop.error:
            return
        tokenizer = self._examples.tokenizer
        export(self._trainer, self._training, self._base, tokenizer.spec)
        self._trainer.accelerator.wait_for_everyone()
        if self._trainer.is_fsdp_enabled:  # a sharded model fits on no single GPU
            return
        # What was trained makes room for what was exported.
        self._trainer.optimizer = None
        self._trainer.accelerator.free_memory()
        trained: Any = self._trainer.model
        trained.to("cpu")
        exported = load_torch_engine(load(self._training.output), "auto", tokenizer.placeholders)
        self._trainer.log(validate(exported, self._examples, choose=self._fitting or choose))
        if self._fitting and state.is_world_process_zero and not self._stop.error:
            write_prior_weights(self._training.output, self._fitting.weights)
            self._report(describe_weights(self._fitting.weights))
        if self._stop.error and state.is_world_process_zero:  # the model answers with NaN, and must not score
            storage.delete(storage.join(self._training.output, SPEC))


def _read_weights(name: str, path: Path, is_frozen: bool) -> PreTrainedModel:
    # Frozen weights may be bfloat16. Trained ones may not: small steps would be lost in 8 bits.
    is_half = torch.cuda.is_available() and is_frozen
    model = read_model(path, torch.bfloat16 if is_half else torch.float32)
    if model.base_model is model:
        raise InputError(
            f"{name} has no language model separate from its output layer, which training needs; take another model"
        )
    return model


def _read_trained(name: str, trained: Model) -> PreTrainedModel:
    """Reads an earlier training's model, frozen, with its LoRA next to the base's weights."""
    model = _read_weights(name, trained.base, is_frozen=True)
    model.load_adapter(str(trained.lora))
    return model.requires_grad_(False)


def _run(
    trainer: Trainer, callbacks: list[TrainerCallback], first: TrainerCallback, checkpoint: str | None, output: str
) -> None:
    if checkpoint and any(Path(checkpoint).glob(_FSDP_WEIGHTS)) != trainer.is_fsdp_enabled:
        made = "without --fsdp" if trainer.is_fsdp_enabled else "with --fsdp"
        raise InputError(f"the last checkpoint in {output} was made {made}; train on as it began, or delete it")
    if checkpoint:
        check_state(checkpoint, output)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.callback_handler.callbacks.insert(0, first)  # MLflow's closes its run at the end of training
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError:
        raise InputError(
            f"a checkpoint in {output} holds more than tensors, which is never read; delete its checkpoints"
        ) from None


def check_state(checkpoint: str, output: str) -> None:
    """Raises an InputError unless a checkpoint's trainer_state.json is what transformers wrote: it checks nothing."""
    try:
        state = TrainerState.load_from_json(f"{checkpoint}/{TRAINER_STATE_NAME}")
        plain = [*map(_is_plain, vars(state).items()), all(isinstance(entry, dict) for entry in state.log_history)]
        is_right = all(plain) and 0 <= state.global_step <= state.max_steps
    except Exception:  # noqa: BLE001  # whatever JSON can hold meets code that expects something else
        is_right = False
    if not is_right:
        raise InputError(
            f"{TRAINER_STATE_NAME} of the last checkpoint in {output} is damaged; delete that checkpoint: the same "
            "command resumes from the one before"
        )


def _is_plain(field: tuple[str, Any]) -> bool:
    """Tells whether a field of a state has a value of its default's type."""
    name, value = field
    default = getattr(TrainerState(), name)
    kinds = (int, float) if isinstance(default, int | float) else type(default)
    return default is None or isinstance(value, kinds)


def export(trainer: Trainer, training: Training, base: Model, spec: PromptSpec) -> None:
    """Writes adapter/, or merged/ where all weights were trained, and then spec.json on the first worker.

    All workers call it, to gather a sharded model.
    """
    has_adapter = training.optimization.lora_rank > 0
    with TemporaryDirectory() as scratch:
        saved = Path(scratch, ADAPTER if has_adapter else MERGED)
        trainer.save_model(str(saved))
        if not trainer.is_world_process_zero():
            return
        if has_adapter:
            adapter.name_base(saved, base.lora_base or training.model)
        else:
            copy_processor(base.base, saved)
        upload(saved, storage.join(training.output, saved.name))
    write_spec(training.output, spec)


def upload(folder: Path, uri: str) -> None:
    """Copies a saved model's own files."""
    fs, path = storage.filesystem(uri)
    fs.create_dir(path, recursive=True)
    for file in sorted(folder.iterdir()):
        if file.name not in _NOT_EXPORTED:
            pafs.copy_files(str(file), f"{path}/{file.name}", pafs.LocalFileSystem(), fs)
