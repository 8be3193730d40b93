"""A LoRA next to its base's weights, or merged into them in float32: throughput in vLLM, one engine at a time.

    python benchmarks/adapter.py --model adapters/smollm2-movielens

Each way scores the same prompts, of which none shares a block, in a process of its own. Prints a line for each.
"""

import argparse
import subprocess
import sys
import time

import numpy as np

_PROMPTS, _TOKENS, _ROUNDS = 24, (300, 500), 3


def main() -> None:
    """Measures both ways in turn, or with --way one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="output of a training with LoRA")
    parser.add_argument("--way", choices=["merged", "unmerged"])
    flags = parser.parse_args()
    if flags.way:
        measure(flags.model, flags.way)
        return
    for way in ("merged", "unmerged", "merged", "unmerged"):
        subprocess.run([sys.executable, __file__, "--model", flags.model, "--way", way], check=True)


def measure(name: str, way: str) -> None:
    """Prints the seconds of each round and the mean log-probabilities, which tell whether both ways agree."""
    from artsel_ray.engines import vllm
    from artsel_ray.models.load import load

    model = load(name)
    if way == "unmerged":  # in float32, which CPUs compute in, the engine would merge
        vllm.weights_of = lambda model, number_format: (model.base, model.lora)
    engine = vllm.VllmEngine(model, max_model_length=2_048, max_allowed=8)
    rng = np.random.default_rng(0)
    for _ in range(_ROUNDS):
        prompts = [rng.integers(300, 40_000, rng.integers(*_TOKENS)).astype(np.int32) for _ in range(_PROMPTS)]
        started = time.perf_counter()
        answers = engine.logprobs(prompts, [[5, 6, 7]] * len(prompts))
        seconds, tokens = time.perf_counter() - started, sum(map(len, prompts))
        print(
            f"{way}: {tokens / seconds:,.0f} prompt tokens/s, mean log-probability {np.mean(answers):.5f}", flush=True
        )


if __name__ == "__main__":
    main()
