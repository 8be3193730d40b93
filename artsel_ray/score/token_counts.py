"""What a night's requests cost in tokens, counted before anything is scored.

The limit is to compute every distinct prefix once: a title's options for all its users (`title_first`), or a user's
history for all its titles (`user_first`), and for each pair what is its own. An engine's cache holds whole blocks of
tokens, so that every question also computes what lies between the last whole block and the end of what it shares.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from artsel_ray.data.catalog import Catalog
from artsel_ray.decoding import trie
from artsel_ray.prompts.spec import Layout
from artsel_ray.runtime.task_result import map_files
from artsel_ray.score.rendering import prompt_tokenizer, tokenize_title
from artsel_ray.score.requests import read_requests
from artsel_ray.score.resolve import ScoringSettings

LAYOUTS: tuple[Layout, ...] = ("title_first", "user_first")
# Titles that one task tokenizes.
_TITLES = 500
_GPU_BLOCK, _CPU_BLOCK = 16, 128


@dataclass(frozen=True)
class TitleCosts:
    """What a pair of each of X titles costs in tokens. Means over the candidates, where an answer decides."""

    title_ids: pa.Array
    block: NDArray[np.int64]
    """Of the title's line and its options."""
    budget: NDArray[np.int64]
    """Most of a history; -1 where none fits."""
    questions: NDArray[np.float64]
    """That a pair asks, one for each branch of the trie that it meets."""
    paths: NDArray[np.float64]
    """Behind the prompt, of all questions together."""
    distinct: NDArray[np.float64]
    """The same, with what questions share counted once."""


def measure_titles(
    titles: NDArray[np.int64], catalog: Catalog, contents: pa.Array, rendering: ScoringSettings
) -> list[list[float]]:
    """Tokenizes titles, given by their places in the catalogue; returns for each its numbers as in `TitleCosts`."""
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    rows = []
    for title in titles.tolist():
        options = tokenize_title(tokenizer, catalog, contents, title)
        budget = tokenizer.history_budget(options, rendering.max_model_length) if options.answers else -1
        rows.append([options.length, budget, *_questions(options.answers, tokenizer.option_end, rendering)])
    return rows


def _costs(title_ids: pa.Array, rows: list[list[float]]) -> TitleCosts:
    block, budget, *means = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    return TitleCosts(title_ids, block.astype(np.int64), budget.astype(np.int64), *means)


def _questions(answers: list[list[int]], end: int, rendering: ScoringSettings) -> tuple[float, float, float]:
    """Returns a pair's questions, the tokens of their paths, and of these the distinct ones.

    `rank` asks at every branch, `choose` at those on the way to its choice: the mean over all candidates. A model that
    writes is asked once.
    """
    if rendering.decoding == "freetext" or rendering.spec.reason or not answers:
        return 1.0, 0.0, 0.0
    branches = trie.build(answers, end).branches
    lengths = np.array([len(branch.path) for branch in branches], dtype=np.int64)
    if rendering.decoding in ("rank", "labels"):
        paths = {tuple(branch.path[:length].tolist()) for branch in branches for length in range(len(branch.path))}
        return float(len(branches)), float(lengths.sum()), float(len(paths))
    asked = np.zeros((len(answers), len(branches)), dtype=bool)
    for index, branch in enumerate(branches):
        asked[list(itertools.chain.from_iterable(branch.members)), index] = True
    means = asked.sum(1).mean(), (asked @ lengths).mean(), (asked * lengths).max(1, initial=0).mean()
    return float(means[0]), float(means[1]), float(means[2])


def count(
    counts: Counter[str],
    parts: Mapping[str, int],
    files: list[str],
    catalog: Catalog,
    contents: pa.Array,
    rendering: ScoringSettings,
    block: int,
) -> Counter[str]:
    """Counts what requests cost, in tasks on Ray. Pairs that would be rejected are left out.

    Args:
        counts: pairs of each title.
        parts: shards of each title; 1 for those left out.
        files: of the requests.
        contents: of the catalogue's artworks: captions, or where pictures are.
        block: tokens in a block of the engine's cache.

    Returns:
        `pairs`, `questions`, `prompt_tokens` (from the cache or not), `history_bytes`, and for each layout
        `LAYOUT_distinct` and `LAYOUT_computed`, in tokens; with `further_`, the part of the questions behind each
        pair's first one, whose number depends on the answer where it is chosen.
    """
    places = pc.index_in(pa.array(sorted(counts), pa.string()), catalog.title_ids).drop_null().to_numpy()
    slices = [places[start : start + _TITLES] for start in range(0, len(places), _TITLES)]
    shared = ray.put((catalog, contents))

    def measure(index: int) -> list[list[float]]:
        return measure_titles(slices[index], *ray.get(shared), rendering)

    rows = dict(map_files(len(slices), lambda index: (index, measure(index))))
    costs = _costs(catalog.title_ids.take(pa.array(places)), [row for index in sorted(rows) for row in rows[index]])
    known = ray.put(costs)
    totals: Counter[str] = Counter()
    for counted in map_files(len(files), lambda index: count_file(files[index], ray.get(known), rendering, block)):
        totals.update(counted)
    shards = np.array([parts.get(title_id, 1) for title_id in costs.title_ids.to_pylist()], dtype=np.int64)
    totals.update(_shared(costs, shards, rendering, block))
    return totals


def cheapest(
    counts: Counter[str],
    files: list[str],
    catalog: Catalog,
    contents: pa.Array,
    rendering: ScoringSettings,
    block: int,
) -> ScoringSettings:
    """Returns the rendering with the layout in which an engine computes fewer tokens."""
    totals = count(counts, {}, files, catalog, contents, rendering, block)
    layout = min(LAYOUTS, key=lambda name: totals[f"{name}_computed"])
    print(f"layout {layout}: " + ", ".join(f"{totals[f'{name}_computed']:,.0f} tokens {name}" for name in LAYOUTS))
    return dataclasses.replace(rendering, spec=dataclasses.replace(rendering.spec, layout=layout))


def block_tokens() -> int:
    """Returns how many tokens a block of vLLM's cache holds on this cluster's machines."""
    return _GPU_BLOCK if ray.cluster_resources().get("GPU") else _CPU_BLOCK


def count_file(file: str, costs: TitleCosts, rendering: ScoringSettings, block: int) -> Counter[str]:
    """Counts what one file of requests costs, but for what is paid once a title and shard.

    Pairs of titles that are not in `costs`, and those that do not fit the model, are left out.

    Args:
        block: tokens in a block of the engine's cache.

    Returns:
        Totals as `count` returns them.
    """
    totals: Counter[str] = Counter()
    for _, table, _, _ in read_requests([file], 0):
        totals.update(_count_rows(table, costs, rendering, block))
    return totals


def _count_rows(table: pa.Table, costs: TitleCosts, rendering: ScoringSettings, block: int) -> dict[str, float]:
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    histories = tokenizer.histories(table["history"], np.full(table.num_rows, rendering.max_model_length))
    wanted = table["title_ids"].combine_chunks()
    row = pc.list_parent_indices(wanted).to_numpy()
    title = pc.fill_null(pc.index_in(wanted.flatten(), costs.title_ids), -1).to_numpy()
    row, title = row[title >= 0], title[title >= 0]
    fits = costs.budget[title] >= 0
    pairs = int(fits.sum())
    asks = fits & (costs.questions[title] > 0)  # a title with one candidate asks nothing
    row, title = row[asks], title[asks]

    history = np.minimum(pc.list_value_length(histories.ids).to_numpy()[row], costs.budget[title])
    head, tail, own = len(tokenizer.head), len(tokenizer.tail), history - len(tokenizer.history_head)
    options, questions, paths, distinct = (
        each[title] for each in (costs.block, costs.questions, costs.paths, costs.distinct)
    )
    prompt = head + options + history + tail
    # Every question behind a pair's first one finds the prompt's whole blocks in the cache.
    again = (questions - 1) * (prompt % block) + paths
    first = np.diff(row, prepend=-1) != 0  # a user's first pair
    by_title = head + options + len(tokenizer.history_head)
    by_user = np.where(first, head, head + history)
    return {
        "pairs": pairs,
        "questions": questions.sum(),
        "prompt_tokens": (questions * prompt + paths).sum(),
        "further_questions": (questions - 1).sum(),
        "further_prompt_tokens": ((questions - 1) * prompt + paths).sum(),
        "further_computed": again.sum(),
        "history_bytes": float((np.bincount(row, minlength=table.num_rows) * _bytes(table["history"])).sum()),
        "title_first_distinct": (own + tail + distinct).sum(),
        "title_first_computed": (prompt - _whole(by_title, block) + again).sum(),
        "user_first_distinct": (np.where(first, history, 0) + options + tail + distinct).sum(),
        "user_first_computed": (prompt - _whole(by_user, block) + again).sum(),
    }


def _shared(costs: TitleCosts, shards: NDArray[np.int64], rendering: ScoringSettings, block: int) -> dict[str, int]:
    """Returns what is paid once: the instruction by a night, its options by a title and shard."""
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    head, asks = len(tokenizer.head), (costs.budget >= 0) & (costs.questions > 0)
    options = costs.block + len(tokenizer.history_head)
    once = _whole(head + options, block) - head // block * block
    return {
        "title_first_distinct": head + int(options[asks].sum()),
        "user_first_distinct": head,
        "title_first_computed": int((once * shards)[asks].sum()),
    }


def _whole(tokens: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Returns how many of the first tokens fill whole blocks."""
    return tokens // block * block


def _bytes(history: pa.ChunkedArray) -> NDArray[np.float64]:
    """Returns each row's share of the column's size."""
    lengths = pc.fill_null(pc.list_value_length(history), 0).to_numpy()
    return lengths * (history.nbytes / max(lengths.sum(), 1))
