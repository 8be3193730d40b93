"""Examples as prepare writes them, and trainings that take seconds."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch
from peft import get_peft_model
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from artsel_ray import storage
from artsel_ray.config import from_flags, resolved
from artsel_ray.models import adapter
from artsel_ray.models.load import Model, load
from artsel_ray.models.spec import write_spec
from artsel_ray.models.weights import copy_processor, read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import EXAMPLES
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import fit
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.training import Fitted

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
CAPTIONS = ["A red tower.", "Two friends laugh by the sea.", "A lonely house."]

ConfigT = TypeVar("ConfigT", bound=TrainConfig)
TinyLlama = Callable[[bool], str]
"""The fixture `tiny_llama`."""


def write_half_base(folder: Path, model: str, **how: Any) -> str:
    """Writes a model in bfloat16, as Llama's are, and returns its folder; `how`: as in `save_pretrained`."""
    read_model(load(model).base, torch.bfloat16).save_pretrained(folder, **how)
    copy_processor(load(model).base, folder)
    return str(folder)


def write_random_adapter(output: str | Path, base: str, rank: int = 4) -> str:
    """Writes a training's output whose adapter differs from its base in all of its weights, and returns it."""
    model = read_model(load(base).base, torch.float32)
    tokens = [len(PreTrainedTokenizerFast.from_pretrained(load(base).base)) - each for each in (2, 1)]
    trained = get_peft_model(model, adapter.lora_config(model, rank, 2 * rank, tokens))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    trained.save_pretrained(str(Path(output, "adapter")))
    adapter.name_base(Path(output, "adapter"), base)
    write_spec(str(output), PromptSpec())
    return str(output)


def example_row(number: int, label: int = 1, captions: list[str] = CAPTIONS, **changes: Any) -> dict[str, Any]:
    """Returns one example with a history of `number` items."""
    item = {"timestamp": DAY, "title_name": "Heat", "genres": ["Crime"], "watch_seconds": 60.0}
    return {
        "example_id": f"e{number}", "user_id": f"u{number}", "title_id": "t", "title_name": "Up",
        "title_genres": ["Comedy"], "history": [item] * number,
        "candidates": [{"artwork_id": f"a{index}", "caption": caption} for index, caption in enumerate(captions)],
        "label": label, "propensity": None, "timestamp": DAY, "rationale": None, **changes,
    }  # fmt: skip


def write_examples(uri: str | Path, rows: list[dict[str, Any]]) -> str:
    """Writes examples into a folder and returns it."""
    file = storage.join(str(uri), "a.parquet")
    storage.write_table(file, pa.Table.from_pylist(rows, EXAMPLES), "examples")
    return str(uri)


def prompts_of(model: Model, **spec: Any) -> PromptTokenizer:
    """Returns the tokenizer of a model's prompts."""
    return PromptTokenizer(PreTrainedTokenizerFast.from_pretrained(model.path), PromptSpec(**spec))


def supervised_text(examples: TrainingExamples, index: int, epoch: int = 0) -> str:
    """Returns the text of an example's supervised ids."""
    encoded = examples.example(index, epoch)
    ids = [token for token, supervised in zip(encoded.ids, encoded.supervised, strict=True) if supervised]
    return str(examples.tokenizer.tokenizer.decode(ids))


def train_config(examples: str, model: str, output: str | Path, **changes: Any) -> TrainConfig:
    """Returns a training of a few steps in this process."""
    flags: dict[str, Any] = {
        "method": "sft", "workers": 0, "learning_rate": 1e-2, "max_steps": 4, "batch_size": 4, "micro_batch": 2,
        "checkpoint_steps": 2, "validation_size": 4, "lora_rank": 4,
    }  # fmt: skip
    return from_flags(TrainConfig, examples=examples, model=model, output=str(output), **flags | changes)


def changed(config: ConfigT, **flags: Any) -> ConfigT:
    """Returns a config with other values of these flags."""
    return from_flags(type(config), **resolved(config) | flags)


def fit_in(folder: Path, config: TrainConfig, callbacks: list[TrainerCallback] | None = None) -> Fitted:
    """Trains as one worker with its checkpoints in a folder, resuming from the last one there."""
    folder.mkdir(exist_ok=True)
    return fit(training_of(config), str(folder), get_last_checkpoint(str(folder)), callbacks or [], lambda line: None)


def logged(fitted: Fitted, name: str) -> list[float]:
    """Returns all values of a metric."""
    return [entry[name] for entry in fitted.history if name in entry]


def losses_of(output: str) -> list[float]:
    """Returns each step's loss of a finished training."""
    history = storage.read_json(storage.join(output, "summary.json"))["history"]
    return [entry["loss"] for entry in history if "loss" in entry]
