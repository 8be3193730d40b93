"""A tiny Llama learns from random weights who likes what, through our own jobs: how much of what can be learned?

`python benchmarks/learning.py --folder /tmp/learning` makes the world, trains on one machine and prints the curve;
`benchmarks/results/learning.md` has the results.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from artsel_ray import storage
from artsel_ray.config import from_flags
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

# Three themes in words that captions and histories share; almost no engagement where user and artwork do not match.
WORLD = {
    "users": 6_000, "titles": 300, "interactions_per_user": 100.0, "themes": 3, "shared_words": 1.0,
    "taste_strength": 8.0, "engagement_rate": 0.03, "noise": 0.0, "exploration": 0.5, "min_candidates": 2,
    "max_candidates": 3, "caption_tokens": 14, "lexicon": "small", "new_words": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """Where the world and the model go, and how long to train."""

    folder: Path
    epochs: float = 2.0
    seed: int = 0
    group_size: int = 1
    """Users of a title side by side; a step of 32 examples then shows fewer titles."""


def main(benchmark: Benchmark) -> float:
    """Simulates, prepares, trains and scores held-out pairs; prints and returns the share of what can be learned."""
    world, data, model = (str(benchmark.folder / name) for name in ("world", "data", "model"))
    output = benchmark.folder / f"trained-{benchmark.epochs:g}-{benchmark.seed}-{benchmark.group_size}"
    simulate(from_flags(SimulateConfig, output=world, **WORLD))
    prepare(PrepareConfig(input=world, output=data, history_length=16, validation_size=500, test_size=1000))
    write_tiny(f"{world}/titles", f"{world}/artworks", Path(model))
    config = from_flags(
        TrainConfig, method="sft", examples=f"{data}/examples", model=model, output=str(output), history_length=16,
        lora_rank=0, learning_rate=3e-3, epochs=benchmark.epochs, batch_size=32, micro_batch=32, checkpoint_steps=200,
        workers=0, seed=benchmark.seed, group_size=benchmark.group_size,
    )  # fmt: skip
    train(config)
    predictions, evaluation = f"{output}/predictions", f"{output}/evaluation"
    score(from_flags(
        ScoreConfig, requests=f"{data}/requests/test", titles=f"{world}/titles", artworks=f"{world}/artworks",
        model=str(output), output=predictions, decoding="rank", engine="transformers",
    ))  # fmt: skip
    evaluate(EvaluateConfig(
        examples=f"{data}/examples/test", predictions=predictions, output=evaluation, oracle=f"{world}/oracle",
    ))  # fmt: skip
    metrics = storage.read_json(f"{evaluation}/metrics.json")
    chance, best = (metrics["references"][name]["accuracy"]["value"] for name in ("random", "oracle"))
    print("| step | examples | accuracy | of the way from chance to the oracle |\n|---|---|---|---|")
    for entry in storage.read_json(f"{output}/summary.json")["history"]:
        if "validation_accuracy" in entry:
            accuracy = entry["validation_accuracy"]
            print(f"| {entry['step']:,} | validation | {accuracy:.3f} | {(accuracy - chance) / (best - chance):.0%} |")
    share = (metrics["accuracy"]["value"] - chance) / (best - chance)
    print(f"| last | test | {metrics['accuracy']['value']:.3f} | {share:.0%} |")
    return share


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
