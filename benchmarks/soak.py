"""Scores for a long time and records the memory of every process.

`python benchmarks/soak.py --folder /tmp/world` scores with the bundled model for an hour or more,
`… --engine fake --pairs 10000000 --image docs/images/memory-fake.png` ten million pairs without a model. Draws the
memory over time and prints a Markdown table; `benchmarks/results/soak.md` keeps the results.
"""

import contextlib
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import psutil
import tyro
from scoring_world import write_world

from artsel_ray import storage

_SAMPLE_SECONDS = 10


def main(
    folder: Path,
    pairs: int = 8_000,
    engine: Literal["vllm", "fake"] = "vllm",
    candidates: int = 6,
    tokens: int = 20,
    items: int = 6,
    shard_pairs: int = 256,
    engine_memory: float | None = None,
    image: Path = Path("docs/images/memory.png"),
) -> None:
    """Scores made-up requests and draws the memory of the job's processes.

    Args:
        folder: where the world and the predictions go.
        pairs: size of the run; 8,000 pairs with small prompts take about an hour on two CPU cores.
        engine: vllm with the bundled model, or fake.
        candidates: of a title.
        tokens: of a caption.
        items: of a history.
        shard_pairs: most pairs in a shard.
        engine_memory: GiB of an engine's process, above which it is restarted.
        image: where the drawing goes.
    """
    world = folder / f"soak-{engine}-{pairs}"
    if not world.exists():
        write_world(world, pairs, max(10, pairs // 500), (candidates, candidates), tokens, items=items)
    output = world / f"predictions-{time.time_ns()}"
    job = Path(__file__).parent.parent / "jobs/score.py"
    tables = [f"--{name}={world / name}" for name in ("requests", "titles", "artworks")]
    flags = [f"--engine={engine}", f"--shard-pairs={shard_pairs}", "--model=smollm2", f"--output={output}"]
    flags += [f"--engine-memory={engine_memory}"] if engine_memory else []
    process = subprocess.Popen([sys.executable, str(job), *tables, *flags], stdout=sys.stderr)
    measured = watch(process)
    if process.returncode:
        raise SystemExit(f"jobs/score.py failed with exit code {process.returncode}")
    draw(measured, image)
    summary = storage.read_json(str(output / "summary.json"))
    print(f"{summary['pairs']:,} pairs in {summary['seconds']['total'] / 60:.0f} minutes; memory in GiB\n")
    print("| process | started | after a tenth of the time | at the end | maximum |\n|---|---|---|---|---|")
    for name, (starts, samples) in sorted(measured.items()):
        moments, memory = np.array(sorted(samples.items())).T
        early = memory[np.searchsorted(moments, moments[0] + 0.1 * (moments[-1] - moments[0]))]
        print(f"| {name} | {len(starts)} | {early:.2f} | {memory[-1]:.2f} | {memory.max():.2f} |")


Samples = dict[str, tuple[set[int], dict[float, float]]]
"""By the name of a process: the ids of the processes with this name, and their GiB by seconds since the start."""


def watch(process: subprocess.Popen[bytes]) -> Samples:
    """Samples a process and its descendants until it ends."""
    measured: Samples = defaultdict(lambda: (set(), {}))
    started, root = time.monotonic(), psutil.Process(process.pid)
    while process.poll() is None:
        now = time.monotonic() - started
        sums: dict[str, float] = defaultdict(float)
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    name = _name(each, root)
                    measured[name][0].add(each.pid)
                    sums[name] += each.memory_full_info().pss / 2**30
        for name, memory in {**sums, "all": sum(sums.values())}.items():
            measured[name][1][now] = memory
        time.sleep(_SAMPLE_SECONDS)
    return measured


def _name(process: psutil.Process, root: psutil.Process) -> str:
    title = " ".join(process.cmdline()[:1])
    for actor in ("PrepareActor", "EngineActor", "WriteActor"):
        if f"({actor})" in title:
            return actor
    return "driver" if process == root else "Ray and its idle workers"


def draw(measured: Samples, image: Path) -> None:
    """Draws the memory of each kind of process over time."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for name, (_, samples) in sorted(measured.items(), key=lambda item: -max(item[1][1].values())):
        moments, memory = np.array(sorted(samples.items())).T
        axes.plot(moments / 60, memory, label=name, linewidth=2 if name == "all" else 1)
    axes.set(xlabel="minutes", ylabel="GiB (shared memory counts once)", ylim=(0, None))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=90)


if __name__ == "__main__":
    tyro.cli(main)
