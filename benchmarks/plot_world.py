"""Draws docs/images/simulated-world.png: what a simulated world looks like, and the effect of its flags.

python benchmarks/plot_world.py
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig

TARGET = Path(__file__).parent.parent / "docs/images/simulated-world.png"
BASE = SimulateConfig(output="", users=400, titles=200, interactions_per_user=30)
FLAGS: dict[str, list[float]] = {
    "taste_strength": [0.25, 0.5, 1.0, 2.0, 4.0, 8.0],
    "noise": [0.0, 0.5, 1.0, 2.0, 4.0],
    "max_candidates": [4, 8, 16, 24, 44],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = f"{folder}/base"
        simulate(replace(BASE, output=world))
        figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
        draw_world(world, axes[0])
        for axis, (flag, values) in zip(axes[1], FLAGS.items(), strict=True):
            draw_flag(folder, flag, values, axis)
        figure.suptitle("A simulated world (200 titles, 400 users) and the effect of its flags", fontsize=14)
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(TARGET, dpi=90)


def draw_world(world: str, axes: np.ndarray) -> None:
    artworks = read_table(f"{world}/artworks", "artworks")
    counts = pc.value_counts(artworks["title_id"]).field("counts").to_numpy()
    words = np.array([len(caption.split()) for caption in artworks["caption"].to_pylist()])
    oracle = read_table(f"{world}/oracle", "oracle")
    sizes = pc.list_value_length(oracle["propensities"]).to_numpy()
    relative = oracle["propensities"].combine_chunks().flatten().to_numpy() * np.repeat(sizes, sizes)
    for axis, values, bins, label in (
        (axes[0], counts, 20, "candidates of a title"),
        (axes[1], words, 30, "words of a caption"),
        (axes[2], relative, np.geomspace(0.05, 20, 40), "propensity × candidates (1 = uniform)"),
    ):
        axis.hist(values, bins=bins, color="#4477aa")
        axis.set(xlabel=label, ylabel="count")
    axes[2].set_xscale("log")


def draw_flag(folder: str, flag: str, values: list[float], axis: Axes) -> None:
    best = []
    for value in values:
        output = f"{folder}/{flag}-{value}"
        simulate(replace(BASE, output=output, **{flag: value}))  # type: ignore[arg-type]
        best.append(storage.read_json(f"{output}/summary.json")["best_possible"])
    for name, label in (("accuracy", "best possible accuracy"), ("random_accuracy", "random accuracy")):
        axis.plot(values, [each[name] for each in best], marker="o", label=label)
    other = axis.twinx()
    other.plot(values, [each["ips"] for each in best], marker="s", color="#cc6677", label="best possible IPS (right)")
    other.set_ylim(0)
    axis.set(xlabel=f"--{flag.replace('_', '-')}", ylim=(0, None))
    lines = [*axis.get_lines(), *other.get_lines()]
    axis.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="center right")


if __name__ == "__main__":
    main()
