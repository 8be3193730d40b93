"""Scores on a Ray cluster of several nodes on this machine, with engines that sleep as long as a GPU would compute.

`python benchmarks/scale.py --folder /tmp/world` runs 1 engine, 16 on four nodes, and 16 of which one node is killed
halfway, and prints a Markdown table. Efficiency is the speed in the middle of the run, when all engines have started
and none has finished, divided by that of as many engines that never wait. `benchmarks/results/scale.md` keeps the
results.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tyro
from ray.cluster_utils import Cluster
from scoring_world import write_world

from artsel_ray import storage

ROOT = Path(__file__).parent.parent
_NODES = 4


def run(world: Path, output: Path, engines: int, rate: float, lose: bool) -> dict[str, Any]:
    """Scores a world on a fresh cluster; returns its summary."""
    nodes = min(_NODES, engines)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    try:
        workers = [cluster.add_node(num_cpus=max(1, engines // nodes)) for _ in range(nodes)]
        tables = [f"--{name}={world / name}" for name in ("requests", "titles", "artworks")]
        flags = [f"--engines={engines}", f"--tokens-per-second={rate}", "--engine=fake", "--model=smollm2"]
        command = [
            sys.executable,
            str(ROOT / "jobs/score.py"),
            *tables,
            *flags,
            f"--output={output}",
            "--shard-pairs=64",
        ]
        process = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=sys.stderr)
        if lose:
            while len(storage.find_files(str(output))) < 100 and process.poll() is None:
                time.sleep(0.2)
            cluster.remove_node(workers[-1], allow_graceful=False)
        if process.wait():
            raise SystemExit("jobs/score.py failed")
    finally:
        cluster.shutdown()
    return storage.read_json(str(output / "summary.json"))


def middle_speed(output: Path, pairs: int) -> float:
    """Returns the pairs/s between half and nine tenths of the shards."""
    done = sorted(path.stat().st_mtime for path in output.glob("part-*.parquet"))
    first, last = len(done) // 2, len(done) * 9 // 10
    return pairs / len(done) * (last - first) / (done[last] - done[first])


def main(folder: Path, rate: float = 50_000.0, pairs_per_engine: int = 4_000) -> None:
    """Prints the table.

    Args:
        folder: where the worlds and predictions go.
        rate: tokens per second that an engine simulates.
        pairs_per_engine: size of the run, for each engine.
    """
    heads = "engines", "nodes", "pairs scored", "pairs/s", "without waiting", "efficiency"
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for engines, lose in ((1, False), (16, False), (16, True)):
        pairs = pairs_per_engine * engines
        world = folder / f"scale-{pairs}"
        if not world.exists():
            write_world(world, pairs, max(10, pairs // 200))
        output = world / f"predictions-{time.time_ns()}"
        summary = run(world, output, engines, rate, lose)
        computed = (summary["prompt_tokens"] - summary["cached_tokens"]) / summary["pairs"]
        ideal, speed = engines * rate / computed, middle_speed(output, summary["pairs"])
        nodes = f"{min(_NODES, engines)}{', one lost' if lose else ''}"
        cells = [f"{engines}", nodes, f"{summary['pairs']:,}", f"{speed:,.0f}", f"{ideal:,.0f}", f"{speed / ideal:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
