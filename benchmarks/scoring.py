"""Measures scoring: its decodings and layouts side by side, all but the model, and its engine against ray.data.llm's.

`ways` times the paper's way, ours, and bare vLLM on the same pairs in one process; `fake` scores made-up requests with
the fake engine; `engines` compares our actor with ray.data.llm's processor. Each prints a Markdown table;
`benchmarks/results/scoring.md` keeps the results.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from prepare import tree_bytes
from scoring_world import write_world

from artsel_ray import storage


@dataclass(frozen=True)
class Shape:
    """A small run in which every user requests every title."""

    titles: int
    users: int
    candidates: tuple[int, int]
    """Candidates of the first and of the last title; the others lie evenly between."""
    tokens: int
    """Tokens of a caption."""
    items: int
    """Interactions in a history."""

    def write(self, folder: Path) -> None:
        """Writes the world, if it is not there."""
        if not folder.exists():
            pairs = self.titles * self.users
            write_world(folder, pairs, self.titles, self.candidates, self.tokens, self.titles, self.items)


SHAPES = {
    "paper": Shape(titles=3, users=50, candidates=(4, 40), tokens=200, items=50),
    "small": Shape(titles=4, users=25, candidates=(4, 10), tokens=30, items=8),
}


def score(world: Path, output: Path, *flags: str) -> tuple[dict[str, Any], float, float]:
    """Runs jobs/score.py; returns its summary, the process's seconds, and its tree's peak memory in GiB."""
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


def fake(folder: Path, pairs: tuple[int, ...] = (100_000, 1_000_000), users_per_title: int = 500) -> None:
    """Times scoring with the fake engine: 20 candidates of 200 tokens, histories of 50 items.

    Args:
        folder: where the worlds and predictions go.
        pairs: sizes of the runs.
        users_per_title: users who request the same title.
    """
    heads = "pairs", "titles", "tokens per prompt", "pairs/s", "shuffle, s", "scoring, s", "process, s", "peak, GiB"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for size in pairs:
        world, titles = folder / f"fake-{size}", size // users_per_title
        if not world.exists():
            write_world(world, size, titles)
        output = world / f"predictions-{time.time_ns()}"
        summary, wall, peak = score(world, output, "--model=smollm2", "--engine=fake")
        seconds, tokens = summary["seconds"], summary["prompt_tokens"] / summary["decoded_tokens"]
        rate = summary["pairs"] / (seconds["shuffle"] + seconds["score"])
        cells = [f"{size:,}", f"{titles:,}", f"{tokens:,.0f}", f"{rate:,.0f}", f"{seconds['shuffle']:.0f}"]
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


@dataclass
class Way:
    """One way to answer all pairs, and what its runs took."""

    name: str
    run: Callable[[], int]
    """Answers all pairs, and returns their number."""
    seconds: list[float] = field(default_factory=list)
    pairs: int = 0
    tokens: tuple[int, int, int] | None = None
    """Tokens of the prompts, computed, and decoded; None if the way does not count them."""

    def time(self, engine: Any) -> None:
        """Runs once, with an empty cache."""
        engine._llm.reset_prefix_cache()
        engine.usage.take()
        started = time.perf_counter()
        self.pairs = self.run()
        self.seconds.append(time.perf_counter() - started)
        used = engine.usage.take()
        if used.prompt_tokens:
            self.tokens = used.prompt_tokens, used.prompt_tokens - used.cached_tokens, used.decoded_tokens
        print(f"{self.name}: {self.seconds[-1]:.1f} s", file=sys.stderr, flush=True)

    def row(self, base: list[float]) -> str:
        """Returns the row of the table, compared with other runs in the same turns."""
        ratios = np.array(self.seconds) / np.array(base)
        cells = [self.name, f"{self.pairs / np.median(self.seconds):,.1f}"]
        cells += [f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"]
        counts = [tokens / self.pairs for tokens in self.tokens] if self.tokens else []
        cells += [f"{counts[0]:,.0f}", f"{counts[1]:,.0f}", f"{counts[2]:.1f}"] if counts else ["", "", ""]
        return f"| {' | '.join(cells)} |"


class Recorder:
    """Records what an engine asks of vLLM, to ask it again."""

    def __init__(self, vllm: Any) -> None:
        """Records one `vllm.LLM`."""
        self._vllm, self._generate = vllm, vllm.generate
        self.asked: list[tuple[Any, Any]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records until the end of the block, and forgets what came before."""
        self.asked.clear()
        self._vllm.generate = self._recorded
        yield
        self._vllm.generate = self._generate

    def _recorded(self, prompts: Any, params: Any, **settings: Any) -> Any:
        self.asked.extend(zip(prompts, params, strict=True))
        return self._generate(prompts, params, **settings)

    def repeat(self) -> None:
        """Asks vLLM the same, without anything of ours."""
        prompts, params = zip(*self.asked, strict=True)
        self._generate(list(prompts), list(params), use_tqdm=False)


def ways(folder: Path, shape: str = "paper", model: str = "tiny", repeats: int = 3) -> None:
    """Times the paper's way, ours and bare vLLM, on one engine that is loaded before.

    Args:
        folder: where the world goes.
        shape: `paper` or `small`.
        model: `tiny`, a random Llama of two layers, or any model that jobs/score.py takes.
        repeats: runs of every way, in turns, each with an empty cache.
    """
    from artsel_ray.engines.vllm import VllmEngine
    from artsel_ray.models.load import load
    from artsel_ray.models.weights import model_length
    from artsel_ray.score.scoring import score_shard

    world = folder / f"ways-{shape}"
    SHAPES[shape].write(world)
    name = tiny_llama(folder / "tiny") if model == "tiny" else model
    prepared = load(name)
    longest = min(12_288, model_length(prepared.base))
    engine = VllmEngine(prepared, max_model_length=longest, max_allowed=64)
    recorder = Recorder(engine._llm)  # the very engine that ours asks

    def ours(layout: str, decoding: str) -> int:
        shard, answer_spec = render(world, name, layout=layout, decoding=decoding, max_model_length=longest)
        return score_shard(shard, engine, answer_spec)[0].num_rows

    def choose() -> int:
        with recorder.recording():
            return ours("title_first", "choose")

    def bare() -> int:
        recorder.repeat()
        return SHAPES[shape].titles * SHAPES[shape].users

    timed = [
        Way("(a) the paper's: user_first, freetext", lambda: ours("user_first", "freetext")),
        base := Way("(b) title_first, choose", choose),
        Way("(c) title_first, rank", lambda: ours("title_first", "rank")),
        Way("(e) bare vLLM on (b)'s prompts", bare),
    ]
    engine.generate([np.array([1, 2, 3], dtype=np.int32)], 2, [0])  # the first call is slow
    for _ in range(repeats):
        for way in timed:
            way.time(engine)
    heads = "way", "pairs/s", "(b) is faster by", "prompt tokens per pair", "computed", "decoded"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for way in timed:
        print(way.row(base.seconds), flush=True)
    _print_computed(recorder, base)


def _print_computed(recorder: Recorder, base: Way) -> None:
    """Prints how far an engine is from computing every distinct prefix once."""
    questions = [tuple(prompt["prompt_token_ids"]) for prompt, _ in recorder.asked]
    distinct, with_blocks = (computed_tokens(questions, block) for block in (1, 128))
    assert base.tokens is not None
    print(
        f"\n(b): {distinct:,} distinct prefix tokens; with whole blocks of 128 in an endless cache {with_blocks:,} "
        f"to compute, {with_blocks / distinct:.3f} times as many; computed {base.tokens[1]:,}."
    )


def computed_tokens(questions: list[tuple[int, ...]], block: int) -> int:
    """Returns the tokens that a cache of whole blocks, which forgets nothing, leaves to compute: at least one each."""
    known: set[int] = set()
    total = 0
    for ids in questions:
        hashes, state = [], 0
        for end in range(block, len(ids) + 1, block):
            state = hash((state, ids[end - block : end]))
            hashes.append(state)
        reusable = hashes[: (len(ids) - 1) // block]
        found = next((index for index, each in enumerate(reusable) if each not in known), len(reusable))
        known.update(hashes)
        total += len(ids) - found * block
    return total


def render(world: Path, model: str, **flags: Any) -> tuple[Any, Any]:
    """Returns all of a world's pairs as one rendered shard, and the answer spec that it was rendered with."""
    from artsel_ray.config import from_flags
    from artsel_ray.data.catalog import read_catalog
    from artsel_ray.score.assignment import assign_titles, assign_users, count_titles
    from artsel_ray.score.job import resolve_answer_spec
    from artsel_ray.score.rendering import render_shard
    from artsel_ray.score.requests import shuffle_requests
    from artsel_ray.score.settings import ScoreConfig
    from artsel_ray.score.shard_pairs import ShardSource

    tables = {name: str(world / name) for name in ("requests", "titles", "artworks")}
    answer_spec = resolve_answer_spec(from_flags(ScoreConfig, **tables, output="", model=model, **flags))
    files, layout = storage.list_files(tables["requests"]), answer_spec.spec.layout
    counts = count_titles(files[0])
    assignment = assign_users(counts, 10**9) if layout == "user_first" else assign_titles(counts, 10**9, {})
    uris = shuffle_requests(files, range(1), assignment, str(world / "_spill" / layout), str(world / "_rejected")).uris
    catalog, _ = read_catalog(storage.list_files(tables["titles"]), storage.list_files(tables["artworks"]))
    return render_shard(0, ShardSource(uris, [], files, catalog), answer_spec), answer_spec


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
                script = str(Path(__file__).parent / "ray_data_llm.py")
                subprocess.run([sys.executable, script, "--world", str(world), "--model", model, *way], check=True)
            taken.append(time.perf_counter() - started)
            rate = f"{(pairs - pairs // 8) / (taken[-1] - taken[0]):.1f}" if len(taken) > 1 else ""
            print(f"| {engine} | {size} | {taken[-1]:.1f} | {rate} |", flush=True)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"ways": ways, "fake": fake, "engines": engines})
