"""Do proposals ask for what is missing? One theme's artworks are removed from every title of a simulated world.

`python benchmarks/proposals.py --folder /tmp/proposals` simulates the world without them, trains the baseline network
on its train examples, ranks the remaining artworks for the users of the test examples, and finds the users whom none of
them suits. Then SmolLM2 writes the briefs. Counted is how often the removed theme is the one that a gap's genres point
to, and the one that its brief has most words of; by chance that is one in the number of themes.
`benchmarks/results/proposals.md` keeps the results.
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
from artsel_ray.audience.propose import propose
from artsel_ray.audience.scored_run import read_scored_run
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.audience.user_segments import Gap, find_gaps
from artsel_ray.baseline.job import baseline
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.data.checked_reader import read_table
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.runtime.run import finished_parts
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.lexicon import LEXICONS, Theme
from artsel_ray.simulate.settings import SimulateConfig

_WORD = re.compile(r"[a-z]{4,}")


@dataclass(frozen=True)
class Benchmark:
    """The folder of all outputs, and the size of the world."""

    folder: Path
    users: int = 20_000
    titles: int = 300
    themes: int = 5
    briefs: int = 100
    """Number of briefs, those for most users."""
    seed: int = 0


def main(benchmark: Benchmark) -> None:
    """Runs all of it and prints two lines of Markdown."""
    world, data, network = (str(benchmark.folder / name) for name in ("world", "data", "baseline"))
    themes = LEXICONS["small"][: benchmark.themes]
    simulate(
        SimulateConfig(
            output=world, users=benchmark.users, titles=benchmark.titles, themes=benchmark.themes, engagement_rate=0.3,
            interactions_per_user=40.0, min_candidates=12, max_candidates=16, caption_tokens=24, seed=benchmark.seed,
            lexicon="small", new_words=0.0,
        )
    )  # fmt: skip
    removed = _remove_a_theme(world, themes, benchmark.seed)
    prepare(PrepareConfig(input=world, output=data, train_size=80_000, validation_size=1_000, test_size=100_000))
    baseline(
        BaselineConfig(
            examples=f"{data}/examples", output=network, epochs=4, learning_rates=(5e-3,), weight_decays=(0.01,)
        )
    )
    config = ProposeConfig(
        predictions=_as_scoring_run(f"{network}/predictions/test", str(benchmark.folder / "scored")),
        requests=f"{data}/requests/test",
        titles=f"{world}/titles",
        artworks=f"{world}/artworks",
        model="smollm2",
        output=str(benchmark.folder / "proposals"),
        max_proposals=benchmark.briefs,
    )
    _print("groups", _themes_of_gaps(config, removed, themes), len(themes))
    propose(config)
    rows = read_table(config.output, "proposals").to_pylist()
    found = [
        (_theme_of(row["brief"] or "", themes), removed[row["title_id"]]) for row in rows if row["title_id"] in removed
    ]
    _print("briefs", found, len(themes))


def _remove_a_theme(world: str, themes: tuple[Theme, ...], seed: int) -> dict[str, str]:
    """Removes one theme's artworks from each title, with their impressions; returns each title's removed theme.

    A title that would be left with fewer than two artworks keeps all of them.
    """
    artworks = read_table(f"{world}/artworks", "artworks")
    random = np.random.default_rng(seed)
    theme_n = np.array([_theme_of(caption.partition(".")[0], themes) for caption in artworks["caption"].to_pylist()])
    title_n = np.array(artworks["title_id"].to_pylist())
    removed, is_removed_n = {}, np.zeros(len(title_n), dtype=bool)
    for title in dict.fromkeys(title_n.tolist()):
        is_title_n = title_n == title
        theme = str(random.choice(sorted(set(theme_n[is_title_n].tolist()))))
        is_theme_n = is_title_n & (theme_n == theme)
        if (is_title_n & ~is_theme_n).sum() >= 2:
            removed[title], is_removed_n = theme, is_removed_n | is_theme_n
    ids = artworks["artwork_id"].filter(pa.array(is_removed_n))
    storage.write_table(f"{world}/artworks/part-000000.parquet", artworks.filter(pa.array(~is_removed_n)), "artworks")
    for file in storage.list_files(f"{world}/impressions"):
        shown = read_table(file, "impressions")
        left = pc.invert(pc.is_in(shown["artwork_id"], ids.combine_chunks()))
        storage.write_table(file, shown.filter(left), "impressions")
    return removed


def _theme_of(text: str, themes: tuple[Theme, ...]) -> str:
    """Returns the theme that a text has most words of, genres included; a word of two themes counts half for each."""
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


def _as_scoring_run(predictions: str, output: str) -> str:
    """Writes the network's predictions as a finished scoring run; returns its URI."""
    parts = []
    for number, file in enumerate(storage.list_files(predictions)):
        parts.append(f"part-{number:06d}.parquet")
        storage.write_table(f"{output}/{parts[-1]}", read_table(file, "predictions"), "predictions")
    storage.write_json(f"{output}/config.json", {"run": {"prompt": {"asset_kind": "artwork"}}})
    storage.write_manifest(output, {"parts": parts})
    return output


def _themes_of_gaps(config: ProposeConfig, removed: dict[str, str], themes: tuple[Theme, ...]) -> list[tuple[str, str]]:
    """Returns the theme that each gap's genres point to, and the removed one."""
    catalog, _ = read_catalog(storage.list_files(config.titles), storage.list_files(config.artworks))
    requests = storage.list_files(config.requests)
    scored = read_scored_run(finished_parts(config.predictions), requests, catalog, ranked=True)
    gaps = find_gaps(scored, config.share, config.min_users)
    titles = [(_title_id(gap, catalog), gap) for gap in gaps]
    return [(_theme_of_gap(gap, themes), removed[title]) for title, gap in titles if title in removed]


def _title_id(gap: Gap, catalog: Catalog) -> str:
    return catalog.title_ids[gap.title].as_py()


def _theme_of_gap(gap: Gap, themes: tuple[Theme, ...]) -> str:
    def weight(theme: Theme) -> float:
        return sum((each.inside - each.outside) * theme.genres.get(each.genre, 0) for each in gap.over_indexed_genres)

    return max(themes, key=weight).label


def _print(what: str, found: list[tuple[str, str]], themes: int) -> None:
    """Prints how often both themes are the same, with Wilson's 95 % interval ("Probable inference", 1927)."""
    count, hits, z = len(found), sum(one == other for one, other in found), 1.96
    share = hits / count
    middle, spread = share + z**2 / (2 * count), z * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    low, high = (middle - spread) / (1 + z**2 / count), (middle + spread) / (1 + z**2 / count)
    print(f"| {what} | {count} | {share:.3f} [{low:.3f}, {high:.3f}] | {1 / themes:.3f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
