"""Prepares a large generated world with `prepare` and with one polars process, and compares speed and memory.

`python benchmarks/prepare.py --folder /tmp/world` prints a Markdown table; `benchmarks/results/prepare.md` keeps one.
Both sides write the same examples, which `tests/prepare/test_job.py` checks on a small world. Polars does not write
invalid rows with their sources.
"""

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro

from artsel_ray import schema
from artsel_ray.prepare.settings import PrepareConfig

_WORDS = 3_000
_DAY = 86_400_000_000
_START = 1_735_689_600_000_000  # 2025-01-01
_FILES = 10


def write_world(folder: Path, interactions: int, impressions: int, titles: int = 5_000) -> None:
    """Writes a world whose titles have about 20 artworks each, with captions of about 200 tokens."""
    rng = np.random.default_rng(0)
    users = interactions // 62
    counts = rng.integers(4, 37, titles)
    _write(folder, "titles", _titles(titles), 1)
    artworks = _artworks(rng, counts)
    _write(folder, "artworks", artworks, 1)
    popularity = rng.dirichlet(np.full(titles, 0.3))
    _write(folder, "interactions", _events(rng, interactions, users, popularity), _FILES)
    shown = _events(rng, impressions, users, popularity)
    title = pc.index_in(shown["title_id"], artworks["title_id"].unique()).to_numpy()
    position = np.cumsum(counts)[title] - 1 - rng.integers(0, counts[title])
    shown = shown.drop_columns(["watch_seconds"])
    shown = shown.append_column("artwork_id", artworks["artwork_id"].take(pa.array(position)))
    shown = shown.append_column("engaged", pa.array(rng.random(impressions) < 0.3))
    shown = shown.append_column("propensity", pa.array(1 / counts[title]))
    _write(folder, "impressions", shown, _FILES)


def _ids(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 8, "0"), "-")


def _titles(titles: int) -> pa.Table:
    genres = [[f"Genre {n % 7}", f"Genre {7 + n % 11}", f"Genre {18 + n % 5}"][: 1 + n % 3] for n in range(titles)]
    numbers = np.arange(titles)
    return pa.table({"title_id": _ids("t", numbers), "name": _ids("The Title", numbers), "genres": genres})


def _artworks(rng: np.random.Generator, counts: np.ndarray) -> pa.Table:
    vocabulary = np.array(["".join(rng.choice(list("abcdefghilmnoprstu"), rng.integers(3, 9))) for _ in range(_WORDS)])
    words = rng.choice(vocabulary, (int(counts.sum()), 150))
    title_ids = _ids("t", np.repeat(np.arange(len(counts)), counts))
    captions = [" ".join(row) for row in words]
    return pa.table({"artwork_id": _ids("a", np.arange(len(words))), "title_id": title_ids, "caption": captions})


def _events(rng: np.random.Generator, rows: int, users: int, popularity: np.ndarray) -> pa.Table:
    """Returns events in the order of time, as in a log."""
    times = np.sort(_START + rng.integers(0, 365 * _DAY, rows))
    return pa.table(
        {
            "user_id": _ids("u", rng.integers(0, users, rows)),
            "title_id": _ids("t", rng.choice(len(popularity), rows, p=popularity)),
            "timestamp": pa.array(times, schema.TIMESTAMP),
            "watch_seconds": pa.array(rng.exponential(3_000, rows), pa.float32()),
        }
    )


def _write(folder: Path, name: str, table: pa.Table, files: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    rows = -(-table.num_rows // files)
    for number in range(files):
        pq.write_table(table.slice(number * rows, rows), folder / name / f"part-{number:05d}.parquet")


def prepare_with_polars(source: Path, output: Path, sizes: tuple[int, int, int], history_length: int = 50) -> None:
    """Prepares the same examples as `prepare`, in one process and in memory."""
    titles, candidates, labels = _polars_catalog(source)
    history = _polars_interactions(source, titles)
    pairs = _polars_pairs(source, titles, labels, history, history_length)
    order = pairs.select(pl.concat_str("user_id", "title_id", separator="\x1f").hash(0)).to_series().arg_sort()
    train, validation, test = sizes
    if len(pairs) < sum(sizes):
        test, validation = (size * len(pairs) // sum(sizes) for size in (test, validation))
    bounds = {"test": (0, test), "validation": (test, validation), "train": (test + validation, train)}
    for name, (start, size) in bounds.items():
        examples = _polars_examples(pairs[order[start : start + size]], titles, candidates, history)
        (output / "examples" / name).mkdir(parents=True, exist_ok=True)
        examples.write_parquet(output / "examples" / name / "part-0.parquet", compression="zstd", compression_level=1)
        if name == "test":
            requests = examples.group_by("user_id", "timestamp").agg("title_id", pl.first("history"))
            requests.write_parquet(output / "requests.parquet")


def _polars_catalog(source: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    titles = pl.read_parquet(source / "titles").filter(pl.col("name").str.strip_chars() != "")
    titles = titles.unique("title_id", keep="first", maintain_order=True).with_row_index("title")
    artworks = pl.read_parquet(source / "artworks").filter(pl.col("caption").str.strip_chars() != "")
    artworks = artworks.unique("artwork_id", keep="first", maintain_order=True)
    artworks = artworks.join(titles.select("title_id", "title"), on="title_id").sort("title", "artwork_id")
    candidates = artworks.group_by("title").agg(pl.struct("artwork_id", "caption").alias("candidates"))
    label = pl.int_range(pl.len(), dtype=pl.Int32).over("title").alias("label")
    return titles, candidates, artworks.select("artwork_id", "title", label)


def _polars_interactions(source: Path, titles: pl.DataFrame) -> pl.DataFrame:
    watch = pl.col("watch_seconds")
    rows = pl.scan_parquet(source / "interactions").drop_nulls(["user_id", "title_id", "timestamp"])
    rows = rows.filter(watch.is_null() | (watch.is_finite() & (watch >= 0)), pl.col("timestamp") <= _now())
    rows = rows.filter(pl.col("user_id").str.strip_chars() != "")
    rows = rows.join(titles.lazy().select("title_id", "title"), on="title_id").drop("title_id")
    # Rows of the same time keep their order, so that both sides return the same history.
    rows = rows.with_row_index("row").sort("user_id", "timestamp", "row").drop("row")
    rows = rows.unique(keep="first", maintain_order=True)
    return rows.with_row_index("index").collect()


def _now() -> pl.Expr:
    return pl.lit(int(time.time() * 1e6)).cast(pl.Datetime("us", "UTC"))


def _polars_pairs(
    source: Path, titles: pl.DataFrame, labels: pl.DataFrame, history: pl.DataFrame, history_length: int
) -> pl.DataFrame:
    propensity = pl.col("propensity")
    rows = pl.scan_parquet(source / "impressions").drop_nulls(["user_id", "title_id", "timestamp", "engaged"])
    rows = rows.filter(propensity.is_null() | ((propensity > 0) & (propensity <= 1)), pl.col("timestamp") <= _now())
    rows = rows.join(titles.lazy().select("title_id", "title"), on="title_id", maintain_order="left")
    rows = rows.join(labels.lazy(), on=["artwork_id", "title"], maintain_order="left")
    rows = rows.unique(keep="first", maintain_order=True).filter("engaged")
    rows = rows.sort("timestamp", maintain_order=True).unique(["user_id", "title"], keep="first", maintain_order=True)
    indices = history.lazy().select("user_id", "timestamp", "index")
    first = indices.group_by("user_id").agg(pl.min("index").alias("first"))
    rows = rows.join_asof(
        indices.sort("timestamp", maintain_order=True), on="timestamp", by="user_id", allow_exact_matches=False
    )
    rows = rows.join(first, on="user_id").filter(pl.col("index").is_not_null())
    start = pl.max_horizontal("first", pl.col("index").cast(pl.Int64) + 1 - history_length)
    return rows.with_columns(start=start, end=pl.col("index").cast(pl.Int64) + 1).drop("index", "first").collect()


def _polars_examples(
    pairs: pl.DataFrame, titles: pl.DataFrame, candidates: pl.DataFrame, history: pl.DataFrame
) -> pl.DataFrame:
    key = pl.concat_str("user_id", "title_id", pl.col("timestamp").to_physical(), separator="\x1f")
    pairs = pairs.with_columns(example_id=key.hash(0)).sort("example_id").with_row_index("example")
    items = pairs.select("example", index=pl.int_ranges("start", "end")).explode("index")
    events = history[items["index"]].select("title", "timestamp", "watch_seconds")
    named = titles.select("name", "genres")[events["title"]]
    events = events.with_columns(items["example"], named["name"].alias("title_name"), named["genres"])
    item = pl.struct("timestamp", "title_name", "genres", "watch_seconds").alias("history")
    histories = events.group_by("example", maintain_order=True).agg(item)
    shown = titles.select("title", title_name="name", title_genres="genres")
    pairs = pairs.with_columns(histories["history"]).join(shown, on="title", maintain_order="left")
    pairs = pairs.join(candidates, on="title", maintain_order="left")
    nulls = {"rationale": pl.lit(None, pl.String), "image_uris": pl.lit(None, pl.List(pl.String))}
    return pairs.with_columns(**nulls).select(schema.EXAMPLES.names)


@dataclass
class Benchmark:
    """Compares `prepare` with one polars process."""

    folder: Path
    """Where the world and the outputs go; an existing world is reused."""
    interactions: int = 10_000_000
    impressions: int = 1_000_000
    rounds: int = 3
    side: Literal["both", "ray", "polars"] = "both"
    """With one side, runs it in this process and prints its seconds, as the benchmark runs itself."""


def main(benchmark: Benchmark) -> None:
    world = benchmark.folder / "world"
    if benchmark.side != "both":
        print(json.dumps(_run_side(benchmark.side, world, benchmark.folder / benchmark.side)))
        return
    if not (world / "impressions").exists():
        write_world(world, benchmark.interactions, benchmark.impressions)
    print("| round | side | seconds | start of Ray, s | whole process, s | peak memory, GiB |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    seconds: dict[str, list[float]] = {"ray": [], "polars": []}
    for number in range(benchmark.rounds):
        for side, measured in seconds.items():
            result = _measure(benchmark.folder, side)
            measured.append(result["seconds"])
            cells = [str(number + 1), side, *(f"{result[key]:.1f}" for key in ("seconds", "ray_start", "wall", "peak"))]
            print("| " + " | ".join(cells) + " |", flush=True)
    ratios = [polars / ray for ray, polars in zip(seconds["ray"], seconds["polars"], strict=True)]
    print(f"\nSpeed relative to polars, by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def _run_side(side: str, world: Path, output: Path) -> dict[str, float]:
    config = PrepareConfig(input=str(world), output=str(output))
    started = time.perf_counter()
    if side == "polars":
        prepare_with_polars(world, output, (config.train_size, config.validation_size, config.test_size))
        return {"seconds": time.perf_counter() - started, "ray_start": 0.0}
    from artsel_ray.prepare.job import prepare

    started = time.perf_counter()
    prepare(config)
    start = json.loads((output / "summary.json").read_text())["seconds"]["ray_start"]
    return {"seconds": time.perf_counter() - started - start, "ray_start": start}


def _measure(folder: Path, side: str) -> dict[str, float]:
    """Runs one side in its own process, and polls the memory of that process and its descendants."""
    command = [sys.executable, __file__, "--folder", str(folder), "--side", side]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(0.5)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{side} failed with exit code {process.returncode}")
    wall = time.perf_counter() - started
    return {**json.loads(output.splitlines()[-1]), "wall": wall, "peak": peak / 2**30}


def tree_bytes(pid: int) -> int:
    """Returns the proportional set size of a process and its descendants, which counts shared memory once."""
    total, processes = 0, [psutil.Process(pid)]
    with contextlib.suppress(psutil.NoSuchProcess):
        processes += processes[0].children(recursive=True)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
