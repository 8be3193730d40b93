"""Does a proposal ask for what is missing? From every title of a simulated world one theme's artworks are taken away.

`python benchmarks/proposals.py --folder /tmp/proposals` makes the world without them, trains the baseline network on
its train examples, ranks the artworks that are left for the users of the test examples, and looks for the groups that
none of them suits. Then SmolLM2 writes the briefs. Counted is how often the theme that was taken away is the one that a
group's genres point to, and the one that its brief has most words of; by chance that is one in as many as there are.
`benchmarks/results/proposals.md` keeps what it gave.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from artsel_ray import storage
from artsel_ray.audience.propose import find_gaps, propose
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.audience.user_segments import read_scored_run, read_user_genres
from artsel_ray.baseline.job import baseline
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.data.catalog import read_catalog
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.simulate.themes import THEMES, Theme

_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True)
class Benchmark:
    """Where it happens, and in how large a world."""

    folder: Path
    users: int = 20_000
    titles: int = 300
    themes: int = 5
    briefs: int = 100
    """How many briefs are written: for the groups of most users."""
    seed: int = 0


def main(benchmark: Benchmark) -> None:
    """Runs all of it and prints two lines of Markdown."""
    world, data, network = (str(benchmark.folder / name) for name in ("world", "data", "baseline"))
    themes = THEMES[: benchmark.themes]
    simulate(
        SimulateConfig(
            world, users=benchmark.users, titles=benchmark.titles, themes=benchmark.themes, engagement_rate=0.3,
            interactions_per_user=40.0, min_candidates=12, max_candidates=16, caption_tokens=24, seed=benchmark.seed,
        )
    )  # fmt: skip
    removed = _remove_a_theme(world, themes, benchmark.seed)
    prepare(PrepareConfig(world, data, train_size=80_000, validation_size=1_000, test_size=100_000))
    baseline(BaselineConfig(f"{data}/examples", network, epochs=4, learning_rates=(5e-3,), weight_decays=(0.01,)))
    night = _as_a_night(f"{network}/predictions/test", str(benchmark.folder / "night"))
    tables = f"{data}/requests/test", f"{world}/titles", f"{world}/artworks"
    _count_groups(night, tables, removed, themes)
    written = ProposeConfig(night, *tables, "smollm2", str(benchmark.folder / "proposals"), most=benchmark.briefs)
    propose(written)
    rows = storage.read_table(f"{written.output}", "proposals").to_pylist()
    told = [
        (_theme_of(row["brief"] or "", themes), removed[row["title_id"]]) for row in rows if row["title_id"] in removed
    ]
    _print("briefs", told, len(themes))


def _remove_a_theme(world: str, themes: tuple[Theme, ...], seed: int) -> dict[str, str]:
    """Takes one theme's artworks away from each title, with their impressions; returns each title's theme.

    A title keeps all where it would be left with fewer than two.
    """
    artworks = storage.read_table(f"{world}/artworks", "artworks")
    random = np.random.default_rng(seed)
    strongest = [_theme_of(caption.partition(".")[0], themes) for caption in artworks["caption"].to_pylist()]
    titles = artworks["title_id"].to_pylist()
    removed, gone = {}, np.zeros(len(titles), dtype=bool)
    for title in dict.fromkeys(titles):
        mine = np.array([each == title for each in titles])
        theme = str(random.choice(sorted({strongest[n] for n in np.flatnonzero(mine)})))
        bad = mine & np.array([each == theme for each in strongest])
        if (mine & ~bad).sum() >= 2:
            removed[title], gone = theme, gone | bad
    ids = artworks["artwork_id"].filter(pa.array(gone))
    storage.write_table(f"{world}/artworks/part-000000.parquet", artworks.filter(pa.array(~gone)), "artworks")
    for file in storage.list_files(f"{world}/impressions"):
        shown = storage.read_table(file, "impressions")
        left = pc.invert(pc.is_in(shown["artwork_id"], ids.combine_chunks()))
        storage.write_table(file, shown.filter(left), "impressions")
    return removed


def _theme_of(text: str, themes: tuple[Theme, ...]) -> str:
    """Returns the theme that a text has most words of, those of genres included; words of two themes count half."""
    words = set(_WORD.findall(text.lower()))
    owners = Counter(word for theme in themes for word in _vocabulary(theme))
    scores = {theme.label: sum(1 / owners[word] for word in words & _vocabulary(theme)) for theme in themes}
    best = max(scores, key=lambda label: scores[label])
    return best if scores[best] else ""


def _vocabulary(theme: Theme) -> set[str]:
    phrases = (
        *theme.subjects,
        *theme.actions,
        *theme.settings,
        *theme.objects,
        *theme.lights,
        *theme.moods,
        *theme.genres,
    )
    return {word for phrase in phrases for word in _WORD.findall(phrase.lower())}


def _as_a_night(predictions: str, night: str) -> str:
    """Puts the network's predictions where a night's would be."""
    parts = []
    for number, file in enumerate(storage.list_files(predictions)):
        parts.append(f"part-{number:06d}.parquet")
        storage.write_table(f"{night}/{parts[-1]}", storage.read_table(file, "predictions"), "predictions")
    storage.write_json(f"{night}/config.json", {"run": {"prompt": {"asset_kind": "artwork"}}})
    storage.write_manifest(night, {"parts": parts})
    return night


def _count_groups(night: str, tables: tuple[str, str, str], removed: dict[str, str], themes: tuple[Theme, ...]) -> None:
    requests, titles, artworks = (storage.list_files(uri) for uri in tables)
    catalog, _, _ = read_catalog(titles, artworks)
    tastes = read_user_genres(requests)
    parts = [storage.join(night, part) for part in storage.read_json(f"{night}/_manifest.json")["parts"]]
    defaults = ProposeConfig("", "", "", "", "", "")
    gaps = find_gaps(read_scored_run(parts, catalog, tastes, ranked=True), tastes, defaults.share, defaults.min_users)
    told = []
    for gap in gaps:
        title = catalog.title_ids[gap.title].as_py()
        weights = {
            theme.label: sum(
                (each["inside"] - each["outside"]) * theme.genres.get(each["genre"], 0)
                for each in gap.over_indexed_genres
            )
            for theme in themes
        }
        if title in removed:
            told.append((max(weights, key=lambda label: weights[label]), removed[title]))
    _print("groups", told, len(themes))


def _print(what: str, told: list[tuple[str, str]], themes: int) -> None:
    """Prints how often the two are the same, with Wilson's 95 % interval ("Probable inference", 1927)."""
    count, hits, z = len(told), sum(one == other for one, other in told), 1.96
    share = hits / count
    middle, spread = share + z**2 / (2 * count), z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    low, high = (middle - spread) / (1 + z**2 / count), (middle + spread) / (1 + z**2 / count)
    print(f"| {what} | {count} | {share:.3f} [{low:.3f}, {high:.3f}] | {1 / themes:.3f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
