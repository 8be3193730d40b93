"""What a training leaves: adapter/, merged/ and spec.json."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.fs as pafs
from transformers import Trainer

from artsel_ray import storage
from artsel_ray.models import adapter
from artsel_ray.models.load import ADAPTER, MERGED, Model
from artsel_ray.models.spec import write_spec
from artsel_ray.models.weights import copy_processor
from artsel_ray.prompts.spec import PromptSpec

# TRL's own files: its arguments are a pickle, its card knows nothing of this project.
_NOT_EXPORTED = {"training_args.bin", "README.md"}


@dataclass(frozen=True)
class Export:
    """Where a trained model goes, and what it belongs to."""

    output: str
    base: Model
    """What was trained."""
    base_name: str
    """The base's name, as the user gave it."""
    spec: PromptSpec
    """The prompt that it was trained for."""
    has_adapter: bool
    """Whether an adapter was trained; otherwise all weights were."""


def export(trainer: Trainer, what: Export) -> None:
    """Writes the trained model; every worker calls it, to gather a sharded model, and the first one writes."""
    with TemporaryDirectory() as scratch:
        saved, merged = Path(scratch, ADAPTER), Path(scratch, MERGED)
        trainer.save_model(str(saved if what.has_adapter else merged))
        if not trainer.is_world_process_zero():
            return
        if what.has_adapter:
            adapter.merge(what.base.path, saved, merged)
            adapter.name_base(saved, what.base_name)
            _upload(saved, storage.join(what.output, ADAPTER))
        copy_processor(what.base.path, merged)
        _upload(merged, storage.join(what.output, MERGED))
    write_spec(what.output, what.spec)


def _upload(folder: Path, uri: str) -> None:
    fs, path = storage.filesystem(uri)
    fs.create_dir(path, recursive=True)
    for file in sorted(folder.iterdir()):
        if file.name not in _NOT_EXPORTED:
            pafs.copy_files(str(file), f"{path}/{file.name}", pafs.LocalFileSystem(), fs)
