"""The best trial of a sweep: a copy of its output, and its metrics on test examples, which did not choose it."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

import pyarrow.fs as pafs
import ray
import torch
from ray.exceptions import RayError

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data.footers import read_footers
from artsel_ray.engines.torch import load_torch_engine
from artsel_ray.errors import InputError
from artsel_ray.evaluation.held_out import shown_metrics
from artsel_ray.models.load import load
from artsel_ray.models.prior_weights import read_prior_weights
from artsel_ray.models.weights import model_length, prompt_tokenizer
from artsel_ray.runtime.ray_cluster import gpus_per_worker, start_ray, wait_for_resources
from artsel_ray.runtime.run import DRIVER
from artsel_ray.runtime.task_result import capture
from artsel_ray.s3 import open_file
from artsel_ray.train.job import CHECKPOINTS
from artsel_ray.train.trial_records import RECORD, trial_output
from artsel_ray.train.validation import VALIDATION, read_validation, validate

BEST = "best"
_MEASURED = "test.json"
_MIN_EXAMPLES = 100
_COPY_BYTES = 1 << 24


def copy_best(output: str, rate: float) -> None:
    """Copies a trial's output, without its checkpoints, to best/; the manifest comes last."""
    target, source = storage.join(output, BEST), trial_output(output, rate)
    storage.delete(target)
    fs, path = storage.filesystem(source)
    entries = fs.get_file_info(pafs.FileSelector(path, recursive=True))
    names = [entry.path[len(path) + 1 :] for entry in entries if entry.type == pafs.FileType.File]
    kept = [name for name in names if name.split("/")[0] not in (CHECKPOINTS, RECORD, DRIVER, _MEASURED)]
    for name in sorted(kept, key=lambda name: (name == storage.MANIFEST, name)):
        _, to = storage.filesystem(storage.join(target, *name.split("/")))
        fs.create_dir(to.rpartition("/")[0], recursive=True)
        # Streamed: a copy within S3 is limited to 5 GB.
        with open_file(fs, f"{path}/{name}") as reader, fs.open_output_stream(to) as writer:
            shutil.copyfileobj(reader, writer, _COPY_BYTES)


def measure_on_test(
    trained: str, examples: str, size: int, max_model_length: int, gpus: int | None, is_sharded: bool,
    image_roots: Sequence[str] = (), limits: RowLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:  # fmt: skip
    """Returns the number of test examples and a trial's metrics on them, or only `left_out`: why there are none.

    Measured are the first test examples, at most `size` or 100. The trial's output keeps the result.

    Args:
        examples: folder with test/.
        gpus: `--gpus-per-worker`.
        is_sharded: whether the model may fit on no single GPU.
    """
    if is_sharded:
        return {"left_out": "a model trained with --fsdp may fit on no single GPU"}
    if read_prior_weights(trained):
        return {"left_out": "the model was trained with --prior, and is judged together with it"}
    uri, size = storage.join(examples, "test"), max(size, _MIN_EXAMPLES)
    try:
        return _kept_or_measured(trained, uri, size, max_model_length, gpus, image_roots, limits)
    except (InputError, RayError) as error:  # the sweep has its result without it
        cause = str(error) if isinstance(error, InputError) else type(error).__name__
        print(f"warning: the best trial was not measured on test examples: {cause}", flush=True)
        return {"left_out": "the measurement failed"}  # reports show no paths


def _kept_or_measured(
    trained: str, uri: str, size: int, max_model_length: int, gpus: int | None, image_roots: Sequence[str],
    limits: RowLimits,
) -> dict[str, Any]:  # fmt: skip
    files = storage.find_files(uri)
    found = sum(sum(footer.group_rows) for footer in read_footers(files))
    if found < _MIN_EXAMPLES:
        return {"left_out": f"the folder test/ has {found:,} examples, fewer than {_MIN_EXAMPLES}"}
    kept, identity = storage.join(trained, _MEASURED), [storage.describe(files, uri), size, max_model_length]
    if not storage.exists(kept) or storage.read_json(kept)["of"] != identity:
        measured = _on_ray(gpus, trained, uri, size, max_model_length, image_roots, limits)
        storage.write_json(kept, {"of": identity, "measured": measured})
    return storage.read_json(kept)["measured"]


def _on_ray(gpus: int | None, *arguments: Any) -> dict[str, Any]:
    start_ray()
    worker: dict[str, float] = {"CPU": 1, "GPU": gpus_per_worker(gpus)}
    wait_for_resources("measuring the best trial on test examples", worker)
    print("measuring the best trial on test examples", flush=True)
    task = ray.remote(num_cpus=1, num_gpus=worker["GPU"])(capture)
    measured: dict[str, Any] | InputError = ray.get(task.remote(measure, *arguments))
    if isinstance(measured, InputError):
        raise measured
    return measured


def measure(
    trained: str, uri: str, size: int, max_model_length: int, image_roots: Sequence[str] = (),
    limits: RowLimits = DEFAULT_LIMITS,
) -> dict[str, Any]:  # fmt: skip
    """Returns how many examples were measured, and the metrics of `held_out_metrics` of a model's choices for them.

    Raises:
        InputError: if the model or the examples cannot be used.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # Ray gives a task's process one
    model = load(trained)
    assert model.spec is not None
    prompts = prompt_tokenizer(model.base, model.spec)
    length = min(max_model_length, model_length(model.base))
    examples = read_validation(uri, prompts, length, size, image_roots, limits)
    metrics = validate(load_torch_engine(model, "auto", prompts.placeholders), examples)
    return {"examples": len(examples), **{name.removeprefix(VALIDATION): value for name, value in metrics.items()}}


def describe_measured(measured: dict[str, Any]) -> str:
    """Returns the result of `measure_on_test` in words."""
    if "left_out" in measured:
        return f"not measured on any, because {measured['left_out']}"
    return f"on {measured['examples']:,} test examples, {shown_metrics(measured)}"
