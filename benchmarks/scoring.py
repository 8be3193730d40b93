"""Measures all of scoring but the model, with the null engine; and vLLM in our actor beside ray.data.llm's processor.

`python benchmarks/scoring.py --folder /tmp/world --pairs 100000 1000000` scores made-up requests for titles of 20
candidates of about 200 tokens, histories of 50 items; `--engines-pairs 400` compares the engines on a small random
Llama. Both write Markdown tables; `benchmarks/results/scoring.md` keeps what they gave.
"""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from prepare import tree_bytes

from artsel_ray import schema, storage
from artsel_ray.data.captions import write_caption

_ITEMS, _TITLES_PER_USER, _USERS_PER_FILE = 50, 10, 10_000
_FILMS = 5_000


@dataclass(frozen=True)
class Benchmark:
    """Where the worlds go, and what is measured."""

    folder: Path
    pairs: list[int] = field(default_factory=lambda: [100_000, 1_000_000])
    """Sizes of the night for the null engine."""
    users_per_title: int = 500
    """How many of a night's users ask for the same title."""
    engines_pairs: int = 0
    """Pairs for the comparison of engines; 0 leaves it out."""


def write_world(folder: Path, pairs: int, titles: int, candidates: int = 20, tokens: int = 200) -> None:
    """Writes requests of `pairs` pairs for `titles` titles, a file for each 10,000 users."""
    rng = random.Random(0)
    ids = [f"t{number:06d}" for number in range(titles)]
    rows = {"title_id": ids, "name": [f"Film of the year {n}" for n in range(titles)], "genres": [["Drama"]] * titles}
    empty = {"year": pa.nulls(titles, pa.int32()), "synopsis": pa.nulls(titles, pa.string())}
    storage.write_table(str(folder / "titles/a.parquet"), pa.table({**rows, **empty}), "titles")
    mixes = np.random.default_rng(0).dirichlet(np.full(12, 0.3), titles * candidates)
    artworks = {
        "artwork_id": [f"{title}-{n:02d}" for title in ids for n in range(candidates)],
        "title_id": np.repeat(ids, candidates),
        "caption": [write_caption(mix, tokens, 0.3, rng) for mix in mixes],
        "image_uri": pa.nulls(len(mixes), pa.string()),
    }
    storage.write_table(str(folder / "artworks/a.parquet"), pa.table(artworks), "artworks")
    users = pairs // _TITLES_PER_USER
    for first in range(0, users, _USERS_PER_FILE):
        table = _requests(first, min(_USERS_PER_FILE, users - first), ids)
        storage.write_table(str(folder / f"requests/part-{first:08d}.parquet"), table, "requests")


def _requests(first: int, users: int, title_ids: list[str]) -> pa.Table:
    rng = np.random.default_rng([1, first])
    seconds = np.sort(rng.integers(0, 365 * 86_400, (users, _ITEMS)), axis=1).ravel() + 1_700_000_000
    films = pa.array([f"Old film number {n}" for n in range(_FILMS)])
    genres = pa.array([["Action"], ["Drama", "Comedy"], ["Sci-Fi"]])
    items = pa.StructArray.from_arrays(
        [
            pa.array(seconds * 1_000_000).cast(schema.TIMESTAMP),
            films.take(pa.array(rng.integers(0, _FILMS, len(seconds)))),
            genres.take(pa.array(rng.integers(0, len(genres), len(seconds)))),
            pa.array(rng.integers(60, 7200, len(seconds)).astype(np.float32)),
        ],
        fields=list(schema.HISTORY.value_type),
    )
    wanted = np.stack([rng.choice(len(title_ids), _TITLES_PER_USER, replace=False) for _ in range(users)]).ravel()
    lists = [pa.array(np.arange(users + 1) * size, pa.int32()) for size in (_ITEMS, _TITLES_PER_USER)]
    return pa.table(
        {
            "user_id": [f"u{number:08d}" for number in range(first, first + users)],
            "history": pa.ListArray.from_arrays(lists[0], items).cast(schema.HISTORY),
            "title_ids": pa.ListArray.from_arrays(lists[1], pa.array(title_ids).take(pa.array(wanted))),
        }
    )


def score(world: Path, output: Path, *flags: str) -> tuple[dict[str, Any], float, float]:
    """Runs jobs/score.py; returns its summary, the whole process's seconds, and its tree's peak memory in GiB."""
    job = Path(__file__).parent.parent / "jobs/score.py"
    tables = [f"--{name}={world / name}" for name in ("requests", "titles", "artworks")]
    command = [sys.executable, str(job), *tables, f"--output={output}", *flags]
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=sys.stderr)
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(1.0)
    if process.returncode:
        raise SystemExit(f"jobs/score.py failed with exit code {process.returncode}")
    return storage.read_json(str(output / "summary.json")), time.perf_counter() - started, peak / 2**30


def measure_null_engine(benchmark: Benchmark) -> None:
    heads = "pairs", "titles", "tokens a prompt", "pairs/s", "exchange, s", "scoring, s", "process, s", "peak, GiB"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for pairs in benchmark.pairs:
        world, titles = benchmark.folder / f"null-{pairs}", pairs // benchmark.users_per_title
        if not world.exists():
            write_world(world, pairs, titles)
        output = world / f"predictions-{time.time_ns()}"
        summary, wall, peak = score(world, output, "--model=smollm2", "--engine=null")
        seconds, tokens = summary["seconds"], summary["prompt_tokens"] / summary["decoded_tokens"]
        rate = summary["pairs"] / (seconds["exchange"] + seconds["score"])
        cells = [f"{pairs:,}", f"{titles:,}", f"{tokens:,.0f}", f"{rate:,.0f}", f"{seconds['exchange']:.0f}"]
        cells += [f"{seconds['score']:.0f}", f"{wall:.0f}", f"{peak:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def tiny_llama(folder: Path) -> str:
    """Writes a random Llama of two layers with the bundled model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from artsel_ray.models.load import load

    settings = LlamaConfig(
        vocab_size=49154, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, head_dim=32
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    AutoTokenizer.from_pretrained(load("smollm2").path).save_pretrained(folder)
    return str(folder)


def measure_engines(benchmark: Benchmark) -> None:
    """Times a few pairs and many with each engine: the difference leaves out its start."""
    model = tiny_llama(benchmark.folder / "tiny")
    few, many = benchmark.engines_pairs // 8, benchmark.engines_pairs
    print("| engine | pairs | seconds | marginal pairs/s |\n|---|---|---|---|", flush=True)
    for engine in ("our actor, choose", "ray.data.llm"):
        taken = []
        for pairs in (few, many):
            world = benchmark.folder / f"engines-{pairs}"
            if not world.exists():
                write_world(world, pairs, max(_TITLES_PER_USER, pairs // 50), candidates=8, tokens=60)
            started = time.perf_counter()
            if engine == "ray.data.llm":
                subprocess.run([sys.executable, __file__, "--folder", str(world), "--processor", model], check=True)
            else:
                score(world, world / f"predictions-{time.time_ns()}", f"--model={model}", "--max-model-length=2048")
            taken.append(time.perf_counter() - started)
            rate = f"{(many - few) / (taken[-1] - taken[0]):.1f}" if len(taken) > 1 else ""
            print(f"| {engine} | {pairs} | {taken[-1]:.1f} | {rate} |", flush=True)


def run_processor(world: Path, model: str) -> None:
    """Asks ray.data.llm for the first branch of every pair's trie: the least that it would have to do for `choose`."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from artsel_ray.cluster import start_ray
    from artsel_ray.config import ScoreConfig
    from artsel_ray.data.catalogue import read_catalogue
    from artsel_ray.decoding import trie
    from artsel_ray.inference.exchange import assign_titles, count_titles, exchange_file
    from artsel_ray.inference.rendering import prompt_tokenizer, render_shard
    from artsel_ray.inference.settings import resolve

    tables = [str(world / name) for name in ("requests", "titles", "artworks")]
    requests, titles, artworks = tables
    config = ScoreConfig(requests=requests, titles=titles, artworks=artworks, output="", model=model)
    rendering = resolve(replace(config, max_model_length=2048))
    files = storage.list_files(tables[0])
    assignment = assign_titles(count_titles(files[0]), 10**9, {})
    uris = exchange_file(files, 0, assignment, str(world / "_work"), str(world / "_rejected")).uris
    catalogue, captions, _ = read_catalogue(storage.list_files(tables[1]), storage.list_files(tables[2]))
    shard = render_shard(0, uris, [], files, catalogue, captions, rendering)
    tokenizer, rows, histories = prompt_tokenizer(model, rendering.spec), [], iter(shard.histories.to_pylist())
    for group in shard.groups:
        root = trie.build(group.options.answers, tokenizer.option_end).branches[0]
        for _ in range(group.users):
            prompt = np.concatenate((tokenizer.prompt(group.options.block, next(histories)), root.path))
            rows.append({"tokenized_prompt": prompt, "allowed": root.tokens})
    start_ray()
    settings = vLLMEngineProcessorConfig(
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

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        allowed = [int(token) for token in row["allowed"]]
        params = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": allowed, "allowed_token_ids": allowed}
        return {"tokenized_prompt": row["tokenized_prompt"], "sampling_params": params, "prompt": ""}

    processor = build_processor(settings, preprocess=ask, postprocess=lambda row: {"n": row["num_generated_tokens"]})
    answers = processor(ray.data.from_items(rows)).take_all()
    print(json.dumps({"answers": len(answers)}), file=sys.stderr)


@dataclass(frozen=True)
class Arguments(Benchmark):
    """As above; `--processor` is for the benchmark's own use."""

    processor: str | None = None


if __name__ == "__main__":
    arguments = tyro.cli(Arguments)
    if arguments.processor:
        run_processor(arguments.folder, arguments.processor)
    elif arguments.engines_pairs:
        measure_engines(arguments)
    else:
        measure_null_engine(arguments)
