"""What one worker does: read, train with TRL, validate with the decoders that score, export. Knows nothing of Ray."""

import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.fs as pafs
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from artsel_ray import storage
from artsel_ray.decoding import trie
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import ADAPTER, MERGED, Model, load
from artsel_ray.models.spec import write_spec
from artsel_ray.models.weights import copy_processor, prompt_tokenizer, read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.train.checkpoints import seal
from artsel_ray.train.data import TrainingExamples, read_train, read_validation
from artsel_ray.train.dpo import dpo_trainer
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.sft import sft_trainer
from artsel_ray.train.trainers import compute_targets_only

_PROGRESS_SECONDS = 5.0
# Validation examples whose pictures are in memory together.
_PICTURED_AT_ONCE = 32


@dataclass
class Fitted:
    """What a worker's training came to."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry for each time that something was logged, with its `step`."""
    error: str = ""
    """Why it was stopped, for the user; empty if it went to its end."""
    too_long: int = 0


class Watch(TrainerCallback):
    """Validates and asks for a checkpoint every so many steps and at the end; stops at a NaN or inf."""

    def __init__(self, config: TrainConfig, validation: TrainingExamples, say: Callable[[str], None]) -> None:
        """Takes the examples to choose for, and what shows a line to the user."""
        self._config, self._validation, self._say = config, validation, say
        self._begun = self._said = time.monotonic()
        self._first_step: int | None = None
        self.trainer: Trainer | None = None
        self.error = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Is called when a checkpoint, if there is one, has been read."""
        if state.global_step and state.is_world_process_zero:
            self._say(f"going on from step {state.global_step:,}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Is called when a checkpoint is written, before it goes to Ray."""
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if folder.is_dir():  # Trainer makes it on the workers that have something to write
            seal(folder, args.process_index, args.world_size)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Is called after each optimizer step, before a checkpoint is written."""
        last = state.global_step >= state.max_steps
        if last or state.global_step % self._config.checkpoint_steps == 0:
            assert self.trainer is not None
            self.trainer.log(validate(self.trainer, self._validation))
            # Logging has taken back that the step's loss is to be logged too.
            control.should_save = control.should_log = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, **seen: Any) -> Any:
        """Is called with each step's loss, before a checkpoint is written."""
        for name, key in (("loss", "loss"), ("gradient", "grad_norm")):
            value = seen["logs"].get(key, 0.0)
            if not math.isfinite(value) and not self.error:
                self.error = (
                    f"the {name} is {value} at step {state.global_step}; lower --learning-rate. "
                    "The last checkpoint before it is kept"
                )
        if self.error:
            control.should_training_stop, control.should_save = True, False
        self._show(state, seen["logs"])
        return control

    def _show(self, state: Any, logs: dict[str, float]) -> None:
        """Shows where the training is, at most every few seconds, and each validation."""
        if not state.is_world_process_zero:
            return
        now, step = time.monotonic(), state.global_step
        if self._first_step is None:  # with a resumed run, not the first of all
            self._first_step, self._begun = step, now
        if "validation_ips" in logs:
            accuracy, ips = logs["validation_accuracy"], logs["validation_ips"]
            self._say(f"step {step:,}: validation accuracy {accuracy:.4f}, IPS {ips:.4f}")
        elif "loss" in logs and now - self._said > _PROGRESS_SECONDS and step > self._first_step:
            self._said = now
            left = (now - self._begun) / (step - self._first_step) * (state.max_steps - step)
            self._say(f"step {step:,} of {state.max_steps:,}, loss {logs['loss']:.4f}, {left:,.0f} s left")


def fit(
    config: TrainConfig,
    output_dir: str,
    checkpoint: str | None,
    callbacks: list[TrainerCallback],
    say: Callable[[str], None],
) -> Fitted:
    """Trains, and on the first worker exports the result to `config.output`.

    Args:
        output_dir: local folder for checkpoints.
        checkpoint: local folder of the checkpoint to go on from.
        callbacks: of the trainer, called after validation.
        say: shows a line to the user; called on the first worker.

    Raises:
        InputError: if the model, the examples or the checkpoint cannot be used.
    """
    disable_progress_bar()
    compute_targets_only()
    model = load(config.model)
    spec = prompt_spec(config, model)
    prompts = prompt_tokenizer(model.path, spec)
    tokenizer = prompts.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Frozen weights may be bfloat16; trained ones may not: small steps would be lost in 8 bits.
    half = torch.cuda.is_available() and config.lora_rank > 0
    weights = read_model(model.path, torch.bfloat16 if half else torch.float32)
    if weights.base_model is weights:
        raise InputError(f"{config.model} keeps no language model apart from its output layer, which training needs")
    length = min(config.max_model_length, weights.config.get_text_config().max_position_embeddings)
    examples, chosen_for = (storage.join(config.examples, split) for split in ("train", "validation"))
    train = read_train(examples, prompts, length, config.seed, config.shuffle_candidates)
    validation = read_validation(chosen_for, prompts, length, config.validation_size)
    lora = None
    if config.lora_rank:
        # PEFT's trained rows and FSDP's sharded embeddings don't go together (torch 2.13, PEFT 0.21).
        rows = [] if config.fsdp else [prompts.option, prompts.option_end]
        lora = adapter.lora_config(weights, config.lora_rank, 2 * config.lora_rank, rows)
    watch = Watch(config, validation, say)
    make = sft_trainer if config.method == "sft" else dpo_trainer
    trainer = make(config, train, weights, tokenizer, lora, output_dir, [watch, *callbacks])
    watch.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    trained: Any = trainer.model
    if lora:
        adapter.let_fused_head_read_rows(trained.get_base_model())
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except pickle.UnpicklingError:
        raise InputError(
            f"a checkpoint in {config.output} holds more than tensors, which is never read; delete its checkpoints"
        ) from None
    if not watch.error:
        _export(config, model, spec, trainer)
    trainer.accelerator.wait_for_everyone()
    return Fitted(trainer.state.log_history, watch.error, train.too_long)


def prompt_spec(config: TrainConfig, model: Model) -> PromptSpec:
    """Returns the earlier training's prompt, or the default one, with what the flags change.

    Raises:
        InputError: if it cannot be.
    """
    flags: dict[str, Any] = {
        "layout": config.layout,
        "output": config.output_format,
        "reason": config.reason or None,
        "history_length": config.history_length,
        "asset_kind": config.asset_kind,
        "assets": config.assets,
    }
    known = (model.spec or PromptSpec(output="number" if config.assets == "image" else "text")).__dict__
    spec = PromptSpec(**{**known, **{name: value for name, value in flags.items() if value is not None}})
    spec.check()
    return spec


def validate(trainer: Trainer, examples: TrainingExamples) -> dict[str, float]:
    """Chooses for the examples as scoring does; the workers share the work.

    Returns:
        `validation_accuracy`, and `validation_ips`: the mean of hit · m, for π uniform over m candidates.
    """
    accelerator, tokenizer = trainer.accelerator, examples.tokenizer
    workers = 1 if trainer.is_fsdp_enabled else accelerator.num_processes
    # A sharded model answers only when all workers ask the same number of questions: then each chooses for all.
    mine = range(accelerator.process_index % workers, len(examples), workers)
    model: Any = trainer.model
    engine = TorchEngine(model, tokenizer.placeholders)
    answers = [examples.titles[examples.title_n[index]].options.answers for index in mine]
    at_once = _PICTURED_AT_ONCE if tokenizer.placeholders else len(mine)
    choices: list[int] = []
    for start in range(0, len(mine), max(at_once, 1)):
        some = mine[start : start + at_once]
        choices += _choose(engine, examples, some, answers[start : start + at_once])
    hits = [choice == examples.label_n[index] for choice, index in zip(choices, mine, strict=True)]
    weighted = [hit * len(each) for hit, each in zip(hits, answers, strict=True)]
    sums = torch.tensor([len(mine), sum(hits), sum(weighted)], dtype=torch.float32, device=accelerator.device)
    count, *totals = accelerator.reduce(sums, "sum").tolist()
    accuracy, ips = (total / count for total in totals)
    return {"validation_accuracy": accuracy, "validation_ips": ips}


def _choose(
    engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int], answers: list[list[list[int]]]
) -> list[int]:
    """Returns the candidate that is chosen for each of these examples."""
    tokenizer = examples.tokenizer
    prompts = [examples.prompt(index) for index in indices]
    images = [examples.images(index) for index in indices]
    if tokenizer.spec.reason:
        stop = [tokenizer.option, *tokenizer.end]
        reasons = engine.write(prompts, tokenizer.spec.reason_tokens, stop, images=images)
        prompts = [tokenizer.with_rationale(prompt, ids)[0] for prompt, ids in zip(prompts, reasons, strict=True)]
    tries = [trie.build(each, tokenizer.option_end) for each in answers]
    return [choice.candidate for choice in trie.choose(engine, prompts, tries, images)]


def _export(config: TrainConfig, model: Model, spec: PromptSpec, trainer: Trainer) -> None:
    """Writes adapter/, merged/ and spec.json below the output; every worker calls it, to gather a sharded model."""
    with TemporaryDirectory() as scratch:
        saved, merged = Path(scratch, ADAPTER), Path(scratch, MERGED)
        trainer.save_model(str(saved if config.lora_rank else merged))
        if not trainer.is_world_process_zero():
            return
        if config.lora_rank:
            adapter.merge(model.path, saved, merged)
            adapter.name_base(saved, config.model)
            _upload(saved, storage.join(config.output, ADAPTER))
        copy_processor(model.path, merged)
        _upload(merged, storage.join(config.output, MERGED))
    write_spec(config.output, spec)


def _upload(folder: Path, uri: str) -> None:
    fs, path = storage.filesystem(uri)
    fs.create_dir(path, recursive=True)
    for file in sorted(folder.iterdir()):
        # TRL's own files: its arguments are a pickle, its card knows nothing of this project.
        if file.name not in {"training_args.bin", "README.md"}:
            pafs.copy_files(str(file), f"{path}/{file.name}", pafs.LocalFileSystem(), fs)
