"""Runs ray.data.llm's processor on a world's pairs; `scoring.py engines` times it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import tyro
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from scoring import render

from artsel_ray.decoding import trie
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.score.rendering import RenderedShard, prompt_tokenizer


def questions(shard: RenderedShard, tokenizer: PromptTokenizer, paper: bool) -> Iterator[dict[str, Any]]:
    """Yields one question per pair: for the answer's text, or for the first branch of the title's trie."""
    histories = iter(shard.histories.to_pylist())
    for group in shard.groups:
        root = trie.build(group.options.answers, tokenizer.option_end).branches[0]
        longest = max(map(len, group.options.answers)) + 1
        for _ in range(group.users):
            prompt = tokenizer.prompt(group.options.prefix, next(histories))
            if paper:
                yield {"tokenized_prompt": prompt, "max_tokens": longest, "allowed": []}
            else:
                prompt = np.concatenate((prompt, root.path))
                yield {"tokenized_prompt": prompt, "max_tokens": 1, "allowed": root.tokens}


def main(world: Path, model: str, paper: bool = False) -> None:
    """Answers all pairs.

    Args:
        world: with its requests and catalog.
        model: a folder.
        paper: ask for whole captions after the history, as the paper does. Else for the first branch of every pair's
            trie: the least that `choose` needs, on the same prompts.
    """
    layout = "user_first" if paper else "title_first"
    shard, settings = render(world, model, layout=layout, max_model_length=2048)
    tokenizer = prompt_tokenizer(model, settings.spec)
    start_ray()
    processor_config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={"dtype": "float32", "enforce_eager": True, "max_model_len": 2048, "max_logprobs": 64},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}]},
        log_engine_metrics=False,
        runtime_env={"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}},
        concurrency=1,
        batch_size=64,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    end = tokenizer.end

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        params: dict[str, Any] = {"max_tokens": int(row["max_tokens"]), "temperature": 0.0}
        if len(row["allowed"]):
            allowed = [int(token) for token in row["allowed"]]
            params |= {"logprob_token_ids": allowed, "allowed_token_ids": allowed}
        else:
            params |= {"stop_token_ids": end, "ignore_eos": True}
        return {"tokenized_prompt": row["tokenized_prompt"], "sampling_params": params, "prompt": ""}

    processor = build_processor(
        processor_config, preprocess=ask, postprocess=lambda row: {"n": row["num_generated_tokens"]}
    )
    answers = processor(ray.data.from_items(list(questions(shard, tokenizer, paper)))).take_all()
    print(json.dumps({"answers": len(answers)}), file=sys.stderr)


if __name__ == "__main__":
    tyro.cli(main)
