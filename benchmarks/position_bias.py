"""How much a candidate's position decides: the same pairs with their candidates in several orders.

`python benchmarks/position_bias.py --folder F --what smollm2` measures SmolLM2 in the demo's world, with the
bundled adapter and without; `--what tiny` trains a tiny Llama from random weights, with `--shuffle-candidates` and
without. Both run our own jobs, keep finished steps, and print Markdown.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import tyro
from learning import WORLD

from artsel_ray import storage
from artsel_ray.config import from_flags
from artsel_ray.data.checked_reader import read_table
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.models.tiny import write_tiny
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.job import train
from artsel_ray.train.settings import TrainConfig

# The Makefile's DEMO_WORLD.
DEMO: dict[str, Any] = {
    "source": "movielens", "titles": 40, "themes": 3, "taste_strength": 20, "engagement_rate": 0.1, "noise": 0,
    "shared_words": 0, "exploration": 0.5, "min_candidates": 4, "max_candidates": 4, "caption_tokens": 8,
    "lexicon": "small", "new_words": 0.0,
}  # fmt: skip
ADAPTER = Path(__file__).parent.parent / "adapters" / "smollm2-movielens"


@dataclass(frozen=True)
class Benchmark:
    """What to measure, and where."""

    folder: Path
    what: Literal["smollm2", "tiny"]
    pairs: int = 100
    """Number of pairs for SmolLM2."""
    prior_pairs: int = 10
    """Number of other pairs, from which PriDe's prior is estimated."""
    permutations: int = 4
    epochs: float = 2.0
    """Training epochs of the tiny Llama."""


def world(benchmark: Benchmark, flags: dict[str, Any], **sizes: int) -> tuple[str, str]:
    """Simulates and prepares once; returns the folders of both."""
    source, data = (str(benchmark.folder / benchmark.what / name) for name in ("world", "data"))
    if storage.read_manifest(data) is None:
        simulate(from_flags(SimulateConfig, output=source, **flags))
        prepare(from_flags(PrepareConfig, input=source, output=data, **sizes))
    return source, data


def permuted(benchmark: Benchmark, name: str, flags: dict[str, Any]) -> list[str]:
    """Scores with each permutation that is not finished yet; returns the outputs."""
    outputs = [str(benchmark.folder / benchmark.what / name / str(number)) for number in range(benchmark.permutations)]
    for number, output in enumerate(outputs):
        if storage.read_manifest(output) is None:
            score(from_flags(ScoreConfig, output=output, permutation=number, **flags))
    return outputs


def report(examples: str, outputs: list[str], name: str) -> None:
    """Evaluates the runs, and prints one line of Markdown."""
    evaluation = f"{Path(outputs[0]).parent}/evaluation"
    evaluate(EvaluateConfig(
        examples=examples, predictions=outputs[0], output=evaluation, permutations=tuple(outputs[1:])
    ))  # fmt: skip
    found = storage.read_json(f"{evaluation}/metrics.json")["permutations"]

    def cell(estimate: dict[str, float]) -> str:
        return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"

    chosen, accuracy = (
        " / ".join(f"{row[kind]['value']:.2f}" for row in found["by_place"]) for kind in ("chosen", "accuracy")
    )
    line = f"| {name} | {cell(found['agreement'])} | {cell(found['accuracy'])} | {chosen} | {accuracy} |"
    print(f"RESULT {line}", flush=True)


def subset(data: str, name: str, first: int, count: int) -> tuple[str, str]:
    """Writes some of the test examples, in the order of their ids, and the requests for them."""
    table = read_table(f"{data}/examples/test", "examples").sort_by("example_id").slice(first, count)
    pairs = set(zip(table["user_id"].to_pylist(), table["title_id"].to_pylist(), strict=True))
    requests = read_table(f"{data}/requests/test", "requests")
    rows = [
        row | {"title_ids": [title for title in row["title_ids"] if (row["user_id"], title) in pairs]}
        for row in requests.to_pylist()
    ]
    kept = pa.Table.from_pylist([row for row in rows if row["title_ids"]], requests.schema)
    examples, asked = f"{data}/{name}/examples", f"{data}/{name}/requests"
    storage.write_table(f"{examples}/part.parquet", table, "examples")
    storage.write_table(f"{asked}/part.parquet", kept, "requests")
    return examples, asked


def smollm2(benchmark: Benchmark) -> None:
    """Measures zero-shot by text and by number, by number with PriDe, and the adapter."""
    source, data = world(benchmark, DEMO, history_length=4, validation_size=100, test_size=300)
    examples, requests = subset(data, "audited", 0, benchmark.pairs)
    _, others = subset(data, "prior", benchmark.pairs, benchmark.prior_pairs)
    text = {
        "requests": requests, "titles": f"{source}/titles", "artworks": f"{source}/artworks", "model": str(ADAPTER),
        "decoding": "rank",
    }  # fmt: skip
    report(examples, permuted(benchmark, "adapter", text), "adapter, text")
    numbers = {**text, "model": "smollm2", "history_length": 4, "decoding": "labels"}
    report(examples, permuted(benchmark, "numbers", numbers), "zero-shot, number")
    prior = tuple(permuted(benchmark, "prior", {**numbers, "requests": others}))
    report(examples, permuted(benchmark, "pride", {**numbers, "label_prior": prior}), "zero-shot, number, PriDe")
    zero_shot = {**text, "model": "smollm2", "history_length": 4}
    report(examples, permuted(benchmark, "text", zero_shot), "zero-shot, text")


def tiny(benchmark: Benchmark) -> None:
    """Measures a tiny Llama that answers with text, trained with each title's candidates in one order and in many."""
    source, data = world(benchmark, WORLD, history_length=16, validation_size=500, test_size=1000)
    model = benchmark.folder / benchmark.what / "model"
    if not model.exists():
        write_tiny(f"{source}/titles", f"{source}/artworks", model)
    for name, shuffle in (("one order", False), ("--shuffle-candidates", True)):
        trained = str(benchmark.folder / benchmark.what / f"trained-{shuffle}")
        if storage.read_manifest(trained) is None:
            train(from_flags(
                TrainConfig, method="sft", examples=f"{data}/examples", model=str(model), output=trained,
                history_length=16, lora_rank=0, learning_rate=3e-3, epochs=benchmark.epochs, micro_batch=32,
                checkpoint_steps=200, workers=0, shuffle_candidates=shuffle,
            ))  # fmt: skip
        flags = {
            "requests": f"{data}/requests/test", "titles": f"{source}/titles", "artworks": f"{source}/artworks",
            "model": trained, "decoding": "rank", "engine": "transformers",
        }  # fmt: skip
        report(f"{data}/examples/test", permuted(benchmark, f"scored-{shuffle}", flags), f"tiny Llama, {name}")


def main(benchmark: Benchmark) -> None:
    """Prints a Markdown table, one line after each run's own output."""
    print("RESULT | model | agreement | accuracy | chosen at each position | accuracy at each position |", flush=True)
    {"smollm2": smollm2, "tiny": tiny}[benchmark.what](benchmark)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
