"""Measures scoring: its decodings and layouts side by side, all but the model, and its engine beside ray.data.llm's.

`ways` times the paper's way, ours, and bare vLLM on the same pairs in one process; `null` scores made-up requests with
the null engine; `engines` compares our actor with ray.data.llm's processor. Each prints a Markdown table;
`benchmarks/results/scoring.md` keeps what they gave.
"""

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from prepare import tree_bytes

from artsel_ray import schema, storage
from artsel_ray.simulate.captions import write_caption

_USERS_PER_FILE = 10_000
_FILMS = 5_000


@dataclass(frozen=True)
class Shape:
    """A night in small: every user asks for every title."""

    titles: int
    users: int
    candidates: tuple[int, int]
    """Of the first and of the last title; the others lie evenly between."""
    tokens: int
    """Of a caption."""
    items: int
    """Of a history."""


SHAPES = {
    "paper": Shape(titles=3, users=50, candidates=(4, 40), tokens=200, items=50),
    "small": Shape(titles=4, users=25, candidates=(4, 10), tokens=30, items=8),
}


def write_world(
    folder: Path,
    pairs: int,
    titles: int,
    candidates: tuple[int, int] = (20, 20),
    tokens: int = 200,
    wanted: int = 10,
    items: int = 50,
) -> None:
    """Writes requests of `pairs` pairs for `titles` titles, `wanted` of them a user, a file for each 10,000 users."""
    rng = random.Random(0)
    ids = [f"t{number:06d}" for number in range(titles)]
    rows = {"title_id": ids, "name": [f"Film of the year {n}" for n in range(titles)], "genres": [["Drama"]] * titles}
    empty = {"year": pa.nulls(titles, pa.int32()), "synopsis": pa.nulls(titles, pa.string())}
    storage.write_table(str(folder / "titles/a.parquet"), pa.table({**rows, **empty}), "titles")
    counts = np.linspace(*candidates, titles).round().astype(int)
    mixes = np.random.default_rng(0).dirichlet(np.full(12, 0.3), int(counts.sum()))
    artworks = {
        "artwork_id": [f"{title}-{n:02d}" for title, count in zip(ids, counts, strict=True) for n in range(count)],
        "title_id": np.repeat(ids, counts),
        "caption": [write_caption(mix, tokens, 0.3, rng) for mix in mixes],
        "image_uri": pa.nulls(len(mixes), pa.string()),
    }
    storage.write_table(str(folder / "artworks/a.parquet"), pa.table(artworks), "artworks")
    users = pairs // wanted
    for first in range(0, users, _USERS_PER_FILE):
        table = _requests(first, min(_USERS_PER_FILE, users - first), ids, wanted, items)
        storage.write_table(str(folder / f"requests/part-{first:08d}.parquet"), table, "requests")


def _requests(first: int, users: int, title_ids: list[str], wanted: int, items: int) -> pa.Table:
    rng = np.random.default_rng([1, first])
    seconds = np.sort(rng.integers(0, 365 * 86_400, (users, items)), axis=1).ravel() + 1_700_000_000
    films = pa.array([f"Old film number {n}" for n in range(_FILMS)])
    genres = pa.array([["Action"], ["Drama", "Comedy"], ["Sci-Fi"]])
    watched = pa.StructArray.from_arrays(
        [
            pa.array(seconds * 1_000_000).cast(schema.TIMESTAMP),
            films.take(pa.array(rng.integers(0, _FILMS, len(seconds)))),
            genres.take(pa.array(rng.integers(0, len(genres), len(seconds)))),
            pa.array(rng.integers(60, 7200, len(seconds)).astype(np.float32)),
        ],
        fields=list(schema.HISTORY.value_type),
    )
    asked = np.stack([rng.choice(len(title_ids), wanted, replace=False) for _ in range(users)]).ravel()
    lists = [pa.array(np.arange(users + 1) * size, pa.int32()) for size in (items, wanted)]
    return pa.table(
        {
            "user_id": [f"u{number:08d}" for number in range(first, first + users)],
            "history": pa.ListArray.from_arrays(lists[0], watched).cast(schema.HISTORY),
            "title_ids": pa.ListArray.from_arrays(lists[1], pa.array(title_ids).take(pa.array(asked))),
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


def null(folder: Path, pairs: tuple[int, ...] = (100_000, 1_000_000), users_per_title: int = 500) -> None:
    """Times scoring with the null engine: 20 candidates of 200 tokens, histories of 50 items.

    Args:
        folder: where the worlds and predictions go.
        pairs: sizes of the night.
        users_per_title: how many of a night's users ask for the same title.
    """
    heads = "pairs", "titles", "tokens a prompt", "pairs/s", "exchange, s", "scoring, s", "process, s", "peak, GiB"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for size in pairs:
        world, titles = folder / f"null-{size}", size // users_per_title
        if not world.exists():
            write_world(world, size, titles)
        output = world / f"predictions-{time.time_ns()}"
        summary, wall, peak = score(world, output, "--model=smollm2", "--engine=null")
        seconds, tokens = summary["seconds"], summary["prompt_tokens"] / summary["decoded_tokens"]
        rate = summary["pairs"] / (seconds["exchange"] + seconds["score"])
        cells = [f"{size:,}", f"{titles:,}", f"{tokens:,.0f}", f"{rate:,.0f}", f"{seconds['exchange']:.0f}"]
        cells += [f"{seconds['score']:.0f}", f"{wall:.0f}", f"{peak:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def tiny_llama(folder: Path) -> str:
    """Writes a random Llama of two layers with the bundled model's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from artsel_ray.models.load import load

    settings = LlamaConfig(
        vocab_size=49154,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=16_384,
    )
    LlamaForCausalLM(settings).save_pretrained(folder)
    AutoTokenizer.from_pretrained(load("smollm2").path).save_pretrained(folder)
    return str(folder)


def ways(folder: Path, shape: str = "paper", model: str = "tiny", repeats: int = 3) -> None:
    """Times the paper's way, ours and bare vLLM, on one engine that is loaded before.

    Args:
        folder: where the world goes.
        shape: `paper` or `small`.
        model: `tiny`, a random Llama of two layers, or any model that jobs/score.py takes.
        repeats: runs of every way, one after the other in turns, each with an empty cache.
    """
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from artsel_ray.engines.vllm import VllmEngine
    from artsel_ray.models.load import load
    from artsel_ray.score.resolve import model_length
    from artsel_ray.score.scoring import score_shard

    sizes, world = SHAPES[shape], folder / f"ways-{shape}"
    if not world.exists():
        pairs = sizes.titles * sizes.users
        write_world(world, pairs, sizes.titles, sizes.candidates, sizes.tokens, sizes.titles, sizes.items)
    name = tiny_llama(folder / "tiny") if model == "tiny" else model
    longest = min(12_288, model_length(load(name)))
    engine = VllmEngine(load(name).path, max_model_length=longest, max_allowed=64)
    vllm: Any = engine._llm  # the very engine that ours asks
    asked: list[tuple[Any, Any]] = []
    generate = vllm.generate

    def recorded(prompts: Any, params: Any, **settings: Any) -> Any:
        asked.extend(zip(prompts, params, strict=True))
        return generate(prompts, params, **settings)

    def ours(layout: str, decoding: str) -> int:
        shard, rendering = render(world, name, layout=layout, decoding=decoding, max_model_length=longest)
        return score_shard(shard, engine, rendering)[0].num_rows

    def bare() -> int:
        prompts, params = zip(*asked, strict=True)
        generate(list(prompts), list(params), use_tqdm=False)
        return pairs

    timed = {
        "(a) the paper's: user_first, freetext": lambda: ours("user_first", "freetext"),
        "(b) title_first, choose": lambda: ours("title_first", "choose"),
        "(c) title_first, rank": lambda: ours("title_first", "rank"),
        "(e) bare vLLM on (b)'s prompts": bare,
    }
    generate([TokensPrompt(prompt_token_ids=[1, 2, 3])], SamplingParams(max_tokens=2), use_tqdm=False)
    pairs = 0
    seconds: dict[str, list[float]] = {way: [] for way in timed}
    notes: dict[str, str] = {}
    computed: dict[str, int] = {}
    for _ in range(repeats):
        for way, run in timed.items():
            vllm.reset_prefix_cache()
            engine.take_usage()
            if way.startswith("(b)"):
                asked.clear()
                vllm.generate = recorded
            begun = time.perf_counter()
            pairs = run()
            seconds[way].append(time.perf_counter() - begun)
            vllm.generate = generate
            usage = engine.take_usage()
            if usage.prompt_tokens:
                computed[way] = usage.prompt_tokens - usage.cached_tokens
                notes[way] = f"{usage.prompt_tokens / pairs:,.0f} | {computed[way] / pairs:,.0f} | "
                notes[way] += f"{usage.decoded_tokens / pairs:.1f}"
            print(f"{way}: {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
    ours_way = "(b) title_first, choose"
    base = np.array(seconds[ours_way])
    heads = "way", "pairs/s", "(b) is faster by", "prompt tokens a pair", "computed", "decoded"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for way, taken in seconds.items():
        ratios = np.array(taken) / base
        rate = f"{pairs / np.median(taken):,.1f}"
        spread = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"| {way} | {rate} | {spread} | {notes.get(way, '| |')} |", flush=True)
    questions = [tuple(prompt["prompt_token_ids"]) for prompt, _ in asked]
    distinct, with_blocks = (computed_tokens(questions, block) for block in (1, 128))
    print(
        f"\n(b): {distinct:,} distinct prefix tokens; with whole blocks of 128 in an endless cache {with_blocks:,} "
        f"to compute, {with_blocks / distinct:.3f} times as many; computed {computed[ours_way]:,}."
    )


def computed_tokens(questions: list[tuple[int, ...]], block: int) -> int:
    """Returns what is left to compute for a cache of whole blocks that forgets nothing, at least a last token each."""
    known: set[int] = set()
    total = 0
    for ids in questions:
        hashes, state = [], 0
        for end in range(block, len(ids) + 1, block):
            state = hash((state, ids[end - block : end]))
            hashes.append(state)
        reusable = hashes[: (len(ids) - 1) // block]
        found = next((place for place, each in enumerate(reusable) if each not in known), len(reusable))
        known.update(hashes)
        total += len(ids) - found * block
    return total


def render(world: Path, model: str, **flags: Any) -> tuple[Any, Any]:
    """Returns all of a world's pairs as one rendered shard, and how they were rendered."""
    from artsel_ray.config import ScoreConfig
    from artsel_ray.data.catalog import read_catalog
    from artsel_ray.score.rendering import render_shard
    from artsel_ray.score.requests import assign_titles, assign_users, count_titles, shuffle_requests
    from artsel_ray.score.resolve import resolve

    requests, titles, artworks = (str(world / name) for name in ("requests", "titles", "artworks"))
    config = ScoreConfig(requests=requests, titles=titles, artworks=artworks, output="", model=model, **flags)
    rendering = resolve(config)
    files, work = storage.list_files(requests), str(world / "_work" / rendering.spec.layout)
    counts = count_titles(files[0])
    assignment = assign_titles(counts, 10**9, {}) if config.layout != "user_first" else assign_users(counts, 10**9)
    uris = shuffle_requests(files, 0, assignment, work, str(world / "_rejected")).uris
    catalog, captions, _ = read_catalog(storage.list_files(titles), storage.list_files(artworks))
    return render_shard(0, uris, [], files, catalog, captions, rendering), rendering


def engines(folder: Path, pairs: int = 800) -> None:
    """Times our actor and ray.data.llm's processor on a few pairs and on many: the difference leaves out the start.

    Args:
        folder: where the worlds and predictions go.
        pairs: the larger size; the smaller is an eighth.
    """
    model = tiny_llama(folder / "tiny")
    print("| engine | pairs | seconds | marginal pairs/s |\n|---|---|---|---|", flush=True)
    for engine in ("our actor, choose", "ray.data.llm", "ray.data.llm, the paper's way"):
        taken = []
        for size in (pairs // 8, pairs):
            world = folder / f"engines-{size}"
            if not world.exists():
                write_world(world, size, max(10, size // 50), candidates=(8, 8), tokens=60)
            started = time.perf_counter()
            if engine.startswith("our"):
                score(world, world / f"predictions-{time.time_ns()}", f"--model={model}", "--max-model-length=2048")
            else:
                way = ["--paper"] if "paper" in engine else []
                command = [sys.executable, __file__, "processor", "--world", str(world), "--model", model, *way]
                subprocess.run(command, check=True)
            taken.append(time.perf_counter() - started)
            rate = f"{(pairs - pairs // 8) / (taken[-1] - taken[0]):.1f}" if len(taken) > 1 else ""
            print(f"| {engine} | {size} | {taken[-1]:.1f} | {rate} |", flush=True)


def processor(world: Path, model: str, paper: bool = False) -> None:
    """Runs ray.data.llm's processor on a world's pairs; for the use of `engines`.

    Args:
        world: with its requests and catalogue.
        model: a folder.
        paper: ask for whole captions behind the history, as the paper does. Else for the first branch of every pair's
            trie: the least that `choose` needs, on the same prompts.
    """
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from artsel_ray.decoding import trie
    from artsel_ray.runtime.ray_cluster import start_ray
    from artsel_ray.score.rendering import prompt_tokenizer

    layout = "user_first" if paper else "title_first"
    shard, rendering = render(world, model, layout=layout, max_model_length=2048)
    tokenizer, rows, histories = prompt_tokenizer(model, rendering.spec), [], iter(shard.histories.to_pylist())
    for group in shard.groups:
        root = trie.build(group.options.answers, tokenizer.option_end).branches[0]
        longest = max(map(len, group.options.answers)) + 1
        for _ in range(group.users):
            prompt = tokenizer.prompt(group.options.block, next(histories))
            if paper:
                rows.append({"tokenized_prompt": prompt, "most": longest, "allowed": []})
            else:
                prompt = np.concatenate((prompt, root.path))
                rows.append({"tokenized_prompt": prompt, "most": 1, "allowed": root.tokens})
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
        params: dict[str, Any] = {"max_tokens": int(row["most"]), "temperature": 0.0}
        if len(row["allowed"]):
            allowed = [int(token) for token in row["allowed"]]
            params |= {"logprob_token_ids": allowed, "allowed_token_ids": allowed}
        else:
            params |= {"stop_token_ids": tokenizer.end, "ignore_eos": True}
        return {"tokenized_prompt": row["tokenized_prompt"], "sampling_params": params, "prompt": ""}

    build = build_processor(settings, preprocess=ask, postprocess=lambda row: {"n": row["num_generated_tokens"]})
    answers = build(ray.data.from_items(rows)).take_all()
    print(json.dumps({"answers": len(answers)}), file=sys.stderr)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"ways": ways, "null": null, "engines": engines, "processor": processor})
