"""Measures post-training: our batches against TRL's defaults, and Ray Train against the same steps in plain TRL.

`python benchmarks/training.py --folder /tmp/training` trains LoRA on titles of 4 to 40 artworks and writes a Markdown
table; `benchmarks/results/training.md` has the results. Each method runs in a process of its own. Times are medians
over steps, in seconds of the wall clock and of the processor; other load hardly changes the second.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from transformers import TrainerCallback

from artsel_ray import schema, storage
from artsel_ray.config import from_flags
from artsel_ray.train.settings import TrainConfig

DEFAULTS, PLAIN, OURS, RAY = "trl-defaults", "trl", "workers-0", "workers-1"
_LABELS = {
    DEFAULTS: "plain TRL, its defaults",
    PLAIN: "plain TRL, our order and settings",
    OURS: "ours, --workers 0",
    RAY: "ours, --workers 1 (Ray Train)",
}
_WARM_UP = 1
_WORDS = ["red", "tower", "sea", "house", "light", "friends", "night", "city", "road", "dance", "storm", "garden"]


@dataclass(frozen=True)
class Benchmark:
    """What is trained, and how long."""

    folder: str
    model: str = "smollm2"
    steps: int = 6
    """Optimizer steps that are timed, after one that is not."""
    batch_size: int = 16
    micro_batch: int = 4
    min_candidates: int = 4
    max_candidates: int = 40
    caption_words: int = 10
    history: int = 4
    """Number of items in each history."""
    methods: tuple[str, ...] = tuple(_LABELS)
    repeats: int = 1
    """Runs of each method, in turn."""
    only: str | None = None
    """The method that this process runs; set by the benchmark itself."""


def write_examples(benchmark: Benchmark) -> None:
    """Writes examples whose number of candidates is uniform between the two bounds."""
    rng, count = np.random.default_rng(0), 8 * benchmark.batch_size * (benchmark.steps + _WARM_UP)
    day = 1_700_000_000_000_000
    item = {"timestamp": day, "title_name": "An old film", "genres": ["Drama"], "watch_seconds": 3600.0}
    rows: list[dict[str, Any]] = []
    for number in range(count):
        size = int(rng.integers(benchmark.min_candidates, benchmark.max_candidates + 1))
        captions = [" ".join(rng.choice(_WORDS, benchmark.caption_words)) for _ in range(size)]
        candidates = [{"artwork_id": f"a{index}", "caption": caption} for index, caption in enumerate(captions)]
        rows.append(
            {
                "example_id": f"e{number}", "user_id": f"u{number}", "title_id": f"t{number}", "title_name": "Film",
                "title_genres": ["Drama"], "history": [item] * benchmark.history, "candidates": candidates,
                "label": int(rng.integers(size)), "propensity": None, "timestamp": day, "rationale": None,
            }
        )  # fmt: skip
    for split, some in (("train", rows), ("validation", rows[:1])):
        table = pa.Table.from_pylist(some, schema.EXAMPLES)
        storage.write_table(storage.join(benchmark.folder, f"examples/{split}/part-0.parquet"), table, "examples")


def config_for(benchmark: Benchmark, method: str) -> TrainConfig:
    steps = benchmark.steps + _WARM_UP
    return from_flags(
        TrainConfig, method="sft", examples=f"{benchmark.folder}/examples", model=benchmark.model,
        workers=int(method == RAY), output=f"{benchmark.folder}/{method}", max_steps=steps,
        batch_size=benchmark.batch_size, micro_batch=benchmark.micro_batch, checkpoint_steps=10 * steps,
        validation_size=1,
    )  # fmt: skip


class Clock(TrainerCallback):
    """Times every optimizer step and counts the ids of every batch; writes both at the end."""

    def __init__(self, result: str) -> None:
        """Writes into the file `result`."""
        self._result = Path(result)
        self._ends: list[tuple[float, float]] = []
        """Wall-clock and processor time at the end of each step."""
        self._ids: list[tuple[int, int]] = []
        """Real and all ids of each batch."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        def count(_: Any, __: Any, inputs: dict[str, Any]) -> None:
            if model.training:
                self._ids.append((int(inputs["attention_mask"].sum()), inputs["attention_mask"].numel()))

        model.register_forward_pre_hook(count, with_kwargs=True)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._ends.append((time.perf_counter(), time.process_time()))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        per_step = len(self._ids) // len(self._ends)
        taken = np.diff(np.array(self._ends), axis=0)[_WARM_UP - 1 :]
        ids, positions = np.array(self._ids[per_step * _WARM_UP :]).sum(axis=0)
        measured = {
            "wall": float(np.median(taken[:, 0])), "cpu": float(np.median(taken[:, 1])),
            "ids_second": float(ids / taken[:, 0].sum()), "ids_cpu_second": float(ids / taken[:, 1].sum()),
            "padding": float(1 - ids / positions), "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "losses": [entry["loss"] for entry in state.log_history if "loss" in entry],
        }  # fmt: skip
        self._result.write_text(json.dumps(measured))


def train_plainly(config: TrainConfig, defaults: bool, clock: Clock) -> None:
    """Trains only with TRL and PEFT on our ids: with TRL's defaults, or with our order and settings."""
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    from artsel_ray.models import adapter
    from artsel_ray.models.load import load
    from artsel_ray.models.weights import read_model
    from artsel_ray.prompts.spec import PromptSpec
    from artsel_ray.prompts.tokenizer import PromptTokenizer
    from artsel_ray.train.examples import read_train
    from artsel_ray.train.trainers import Order

    path, flags = load(config.model).path, config.optimization
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    source = read_train(f"{config.examples}/train", prompts, config.learning.max_model_length, flags.seed, False)
    order = range(len(source)) if defaults else Order(source.length_n, flags.batch_size, flags.seed)
    encoded = [source.example(index) for index in order]
    rows = {
        "input_ids": [each.ids for each in encoded],
        "completion_mask": [[int(supervised) for supervised in each.supervised] for each in encoded],
    }
    ours: dict[str, Any] = {
        "train_sampling_strategy": "sequential", "gradient_checkpointing": False, "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
    }  # fmt: skip
    arguments = SFTConfig(
        output_dir=config.output, per_device_train_batch_size=flags.micro_batch, max_steps=flags.max_steps or -1,
        gradient_accumulation_steps=flags.batch_size // flags.micro_batch, learning_rate=config.learning_rate,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, bf16=False, max_length=None, seed=flags.seed,
        completion_only_loss=True,
        disable_tqdm=True, **({} if defaults else ours),
    )  # fmt: skip
    model = read_model(path, torch.float32)
    trainer = SFTTrainer(
        model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer, callbacks=[clock],
        peft_config=adapter.lora_config(
            model, flags.lora_rank, 2 * flags.lora_rank, [prompts.option, prompts.option_end]
        ),
    )  # fmt: skip
    trained: Any = trainer.model
    adapter.let_fused_head_read_rows(trained.get_base_model())
    trainer.train()


def work(settings: dict[str, Any]) -> None:
    """Trains as Ray Train's worker, or the same without Ray."""
    from artsel_ray.train.job import share_cpus, training_of
    from artsel_ray.train.loop import fit

    callbacks: list[TrainerCallback] = [Clock(settings["result"])]
    if settings["on_ray"]:
        from ray.train.huggingface.transformers import RayTrainReportCallback

        callbacks.append(RayTrainReportCallback())
        share_cpus()
    config = settings["config"]
    Path(config.output).mkdir(exist_ok=True)
    fit(training_of(config), config.output, None, callbacks, print)


def run_method(benchmark: Benchmark, method: str, result: str) -> None:
    config = config_for(benchmark, method)
    settings = {"config": config, "result": result, "on_ray": method == RAY}
    if method in (DEFAULTS, PLAIN):
        train_plainly(config, method == DEFAULTS, Clock(result))
    elif method == OURS:
        work(settings)
    else:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        ray.init(include_dashboard=False, log_to_driver=False)
        TorchTrainer(
            work,
            train_loop_config=settings,
            scaling_config=ScalingConfig(num_workers=1),
            torch_config=TorchConfig(backend="gloo"),
            run_config=RunConfig(name=f"run-{time.time_ns()}", storage_path=f"{benchmark.folder}/ray"),
        ).fit()


def main(benchmark: Benchmark) -> None:
    if not storage.exists(f"{benchmark.folder}/examples"):
        write_examples(benchmark)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(benchmark).items()
             if name not in ("methods", "only", "repeats")]  # fmt: skip
    measured: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for turn in range(benchmark.repeats):
        for method in benchmark.methods:
            result = Path(benchmark.folder, f"{method}-{turn}.json")
            subprocess.run([sys.executable, __file__, *flags, f"--only={method}"], check=True, stdout=sys.stderr)
            Path(benchmark.folder, "result.json").rename(result)
            measured[method].append(json.loads(result.read_text()))
    heads = (
        "",
        "padding",
        "ids/s",
        "ids/CPU s",
        "s per step",
        "CPU s per step",
        "peak, GiB",
        "last loss",
        "largest difference from TRL",
    )
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for method, results in measured.items():
        middle = {name: float(np.median([each[name] for each in results])) for name in results[0] if name != "losses"}
        losses, plain = results[0]["losses"], measured.get(PLAIN, results)[0]["losses"]
        difference = max(abs(one - other) for one, other in zip(losses, plain, strict=True))
        cells = [_LABELS[method], f"{middle['padding']:.0%}", f"{middle['ids_second']:,.0f}"]
        cells += [f"{middle['ids_cpu_second']:,.0f}", f"{middle['wall']:.3f}", f"{middle['cpu']:.3f}"]
        cells += [f"{middle['gib']:.1f}", f"{losses[-1]:.5f}", "" if method == DEFAULTS else f"{difference:.0e}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    arguments = tyro.cli(Benchmark)
    if arguments.only:
        run_method(arguments, arguments.only, f"{arguments.folder}/result.json")
    else:
        main(arguments)
