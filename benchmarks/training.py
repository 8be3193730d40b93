"""Measures post-training: our batches against TRL's defaults, and Ray Train against the same steps in plain TRL.

`python benchmarks/training.py --folder /tmp/training` trains LoRA on titles of 4 to 40 artworks and writes a Markdown
table; `benchmarks/results/training.md` has the results. Each method runs in a process of its own. Times are medians
over steps, in seconds of the wall clock and of the processor; other load hardly changes the second.

`python benchmarks/training.py --groups --folder /tmp/groups` compares groups of a title's users with each prompt alone:
the same examples, losses and gradients, by tokens, FLOPs and time, in turn in one process.
"""

import dataclasses
import json
import math
import resource
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    groups: bool = False
    """Compare groups instead: SmolLM2 with prompts of 400 + 150 tokens, and a small Llama with the paper's lengths."""
    users: int = 8
    """With --groups, the users of a title, which make a group."""
    shapes: tuple[int, ...] = (0, 1)
    """With --groups, which of the two models."""
    learn: tuple[Literal["sft", "dpo", "choice"], ...] = ("sft", "dpo", "choice")
    """With --groups, the training methods."""
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
    from artsel_ray.train.orders import Order
    from artsel_ray.train.reading import read_train
    from artsel_ray.train.trainers import SCHEDULE

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
    ours: dict[str, Any] = {"train_sampling_strategy": "sequential", "gradient_checkpointing": False, **SCHEDULE}
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


@dataclass(frozen=True)
class Shape:
    """A model and the tokens of its prompts; without layers it is SmolLM2."""

    name: str
    shared: int
    own: int
    layers: int | None = None
    width: int = 256


SHAPES = (
    Shape("SmolLM2-135M, 400 + 150 tokens", 400, 150),
    Shape("2 layers of 256, 4,170 + 1,008 tokens", 4170, 1008, 2),
)
"""The second has the paper's prompts."""


def group_examples(prompts: Any, shape: Shape, users: int) -> Any:
    """Returns examples of two titles whose prompts have the shape's tokens, up to the length of a word's."""
    from artsel_ray.train.examples import Title, TrainingExamples

    rng, examples = np.random.default_rng(0), TrainingExamples("memory", prompts)

    def text(tokens: int) -> str:
        words = rng.choice(_WORDS, tokens).tolist()
        return str(prompts.tokenizer.decode(prompts.encode([" ".join(words)])[0][:tokens]))

    for title in range(2):
        captions = [text((shape.shared - len(prompts.head) - 40) // 4 - 4) for _ in range(4)]
        examples.titles.append(Title("Film", ["Drama"], captions, prompts.options("Film", ["Drama"], captions)))
        for user in range(users):
            examples.title_n.append(title)
            examples.label_n.append(user % 4)
            history = prompts.encode([text(shape.own - len(prompts.tail))])[0]
            examples.history_n.append(np.array(history, dtype=np.int32))
            examples.rationale_n.append(None)
            examples.propensity_n.append(np.nan)
            examples.length_n.append(shape.shared + shape.own)
    return examples


def group_trainer(method: str, group_size: int, shape: Shape, benchmark: Benchmark) -> Any:
    """Returns the product's trainer, with a title's users in each pass."""
    import pkgutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from artsel_ray.models import adapter
    from artsel_ray.models.load import load
    from artsel_ray.models.weights import prompt_tokenizer, read_model
    from artsel_ray.prompts.spec import PromptSpec
    from artsel_ray.train.job import training_of
    from artsel_ray.train.settings import METHODS
    from artsel_ray.train.trainers import TrainingTask

    base = load("smollm2")
    prompts = prompt_tokenizer(base.base, PromptSpec(output="number", caption_tokens=4096))
    torch.manual_seed(0)
    if shape.layers is None:
        model: Any = read_model(base.base, torch.float32)
    else:
        sizes: dict[str, Any] = {
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_hidden_layers": shape.layers,
        }
        heads: dict[str, Any] = {"num_attention_heads": shape.width // 64, "num_key_value_heads": shape.width // 128}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=49154, max_position_embeddings=8192, **sizes, **heads))
    config = from_flags(
        TrainConfig, method=method, examples="memory", model="smollm2", output=benchmark.folder, workers=0,
        batch_size=2 * benchmark.users, micro_batch=benchmark.users, group_size=group_size,
    )  # fmt: skip
    examples = group_examples(prompts, shape, benchmark.users)
    lora = adapter.lora_config(model, 16, 32, [prompts.option, prompts.option_end])
    task = TrainingTask(training_of(config), examples, model, lora, benchmark.folder)
    return pkgutil.resolve_name(METHODS[method])(task)


def group_step(trainer: Any) -> tuple[float, float, float]:
    """Returns the loss of a pass, forward and backward, and its seconds of wall clock and of the processor."""
    indices = [{"index": index} for index in range(len(trainer.order) // 2)]  # of the first title
    started = time.perf_counter(), time.process_time()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(indices))
    loss.backward()
    ended = time.perf_counter(), time.process_time()
    return loss.item(), ended[0] - started[0], ended[1] - started[1]


def compare_groups(benchmark: Benchmark) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from artsel_ray.train.trainers import compute_targets_only

    compute_targets_only()
    attention: Any = torch.ops.aten
    # torch 2.13 knows no FLOPs of the CPU's kernels: two products of all queries and keys forward, five backward.
    formulas = {
        attention._scaled_dot_product_flash_attention_for_cpu: lambda q, k, *_, **__: 4 * math.prod(q) * k[2],
        attention._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, q, k, *__, **___: (
            10 * math.prod(q) * k[2]
        ),
    }
    print(
        "| model and prompt | method | loss alone, in groups | tokens | FLOPs | time | CPU time |\n" + 7 * "|---" + "|"
    )
    for shape in (SHAPES[each] for each in benchmark.shapes):
        for method in benchmark.learn:
            trainers = [group_trainer(method, size, shape, benchmark) for size in (1, benchmark.users)]
            tokens: list[list[int]] = [[], []]
            flops = []
            for counted, trainer in zip(tokens, trainers, strict=True):
                layer: Any = trainer.model.get_base_model().model.layers[0]
                layer.register_forward_pre_hook(
                    lambda _, args, counted=counted: counted.append(args[0].shape[:2].numel())
                )
                with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
                    group_step(trainer)
                flops.append(counter.get_total_flops())
            totals = [sum(counted) for counted in tokens]
            steps = [[group_step(trainer) for trainer in trainers] for _ in range(benchmark.repeats)]
            middle = np.median(np.array(steps), axis=0)  # [alone and in groups, loss and seconds]
            ratios = [totals[0] / totals[1], flops[0] / flops[1], *(middle[0, 1:] / middle[1, 1:])]
            shown = " | ".join(f"{ratio:.2f} ×" for ratio in ratios)
            print(f"| {shape.name} | {method} | {middle[0, 0]:.6f}, {middle[1, 0]:.6f} | {shown} |", flush=True)


if __name__ == "__main__":
    arguments = tyro.cli(Benchmark)
    if arguments.groups:
        compare_groups(arguments)
    elif arguments.only:
        run_method(arguments, arguments.only, f"{arguments.folder}/result.json")
    else:
        main(arguments)
