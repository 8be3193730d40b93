"""A tiny Llama learns from nothing who likes what, through our own jobs: how much of what there is to learn?

`python benchmarks/learning.py --folder /tmp/learning` makes the world, trains on one machine and prints the curve;
`benchmarks/results/learning.md` keeps what it gave.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from artsel_ray import storage
from artsel_ray.config import PrepareConfig, SimulateConfig, TrainConfig
from artsel_ray.data.prepare import prepare
from artsel_ray.data.simulate import simulate
from artsel_ray.training.launch import train

# Three themes, told in words that captions and histories share; almost no engagement without a match of taste.
WORLD = {
    "users": 8_000, "titles": 300, "interactions_per_user": 100.0, "themes": 3, "shared_words": 1.0,
    "taste_strength": 8.0, "engagement_rate": 0.03, "noise": 0.0, "exploration": 0.5, "min_candidates": 2,
    "max_candidates": 3, "caption_tokens": 14,
}  # fmt: skip


def write_model(world: Path, folder: Path) -> None:
    """A Llama of 93,000 parameters whose tokens are the words of this world; dates and minutes are not seen."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    seen = Regex(r"\b(?!watched\b|min\b)[a-z]+|(?<![^\s])\d(?=\.|$)")
    words.pre_tokenizer = pre_tokenizers.Split(seen, behavior="removed", invert=True)
    titles = storage.read_table(str(world / "titles"), "titles")
    corpus = storage.read_table(str(world / "artworks"), "artworks")["caption"].to_pylist()
    corpus += titles["name"].to_pylist() + [genre for genres in titles["genres"].to_pylist() for genre in genres]
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    words.train_from_iterator(corpus, trainers.WordLevelTrainer(special_tokens=special, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        pad_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Benchmark:
    """Where it happens, and for how long."""

    folder: Path
    epochs: float = 2.0
    seed: int = 0


def main(benchmark: Benchmark) -> None:
    """Simulates, prepares, trains, and prints the share of the way from chance to the oracle."""
    world, data, model = (str(benchmark.folder / name) for name in ("world", "data", "model"))
    simulate(SimulateConfig(output=world, **WORLD))  # type: ignore[arg-type]
    prepare(PrepareConfig(input=world, output=data, history_length=16, validation_size=500, test_size=1000))
    write_model(Path(world), Path(model))
    output = str(benchmark.folder / f"trained-{benchmark.epochs}-{benchmark.seed}")
    config = TrainConfig(
        method="sft", examples=f"{data}/examples", model=model, output=output, history_length=16, lora_rank=0,
        learning_rate=3e-3, epochs=benchmark.epochs, batch_size=32, micro_batch=32, checkpoint_steps=400, workers=0,
        seed=benchmark.seed,
    )  # fmt: skip
    train(config)
    examples = storage.read_table(f"{data}/examples/validation", "examples")
    chance = float(np.mean([1 / len(each) for each in examples["candidates"]]))
    best = storage.read_json(f"{world}/summary.json")["best_possible"]["accuracy"]
    print("| step | validation accuracy | of the way from chance to the oracle |\n|---|---|---|")
    for entry in storage.read_json(f"{output}/summary.json")["history"]:
        if "validation_accuracy" in entry:
            accuracy = entry["validation_accuracy"]
            print(f"| {entry['step']:,} | {accuracy:.3f} | {(accuracy - chance) / (best - chance):.0%} |")


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
