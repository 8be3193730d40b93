from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artsel_ray import storage
from artsel_ray.config import Layout
from artsel_ray.data.catalog import read_catalog
from artsel_ray.decoding import trie
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.assignment import count_titles
from artsel_ray.score.rendering import RenderedShard, prompt_tokenizer
from artsel_ray.score.token_counts import LAYOUTS, TokenCounter, TokenCounts

Render = Callable[[Path, AnswerSpec], RenderedShard]
ANSWER_SPEC = AnswerSpec("smollm2", "smollm2@x", PromptSpec(), 8192, "rank")


def counted(world: Path, answer_spec: AnswerSpec, block_tokens: int) -> TokenCounts:
    files, titles, artworks = (storage.list_files(str(world / name)) for name in ("requests", "titles", "artworks"))
    counts = sum((count_titles(file) for file in files), Counter())
    catalog, _ = read_catalog(titles, artworks)
    counter = TokenCounter(answer_spec, block_tokens)
    return counter.count(files, counter.measure_titles(counts, catalog))


def asked(world: Path, answer_spec: AnswerSpec, render: Render) -> list[tuple[int, ...]]:
    """Every question of a run, as the engine gets it, in its order: pair by pair."""
    shard = render(world, answer_spec)
    tokenizer = prompt_tokenizer(answer_spec.model, answer_spec.spec)
    histories, questions = iter(shard.histories), []
    for group in shard.groups:
        branches = trie.build(group.options.answers, tokenizer.option_end).branches
        for _ in range(group.users):
            prompt = tokenizer.prompt(group.options.prefix, next(histories).values.to_numpy())
            questions += [tuple(np.concatenate((prompt, branch.path)).tolist()) for branch in branches]
    return questions


def computed(questions: list[tuple[int, ...]], block: int) -> int:
    """Tokens that a cache of whole blocks, which forgets nothing, leaves to compute; at least the last of each."""
    known: set[tuple[int, ...]] = set()
    total = 0
    for ids in questions:
        ends = range(block, len(ids) + 1, block)
        found = max((end for end in ends if end < len(ids) and ids[:end] in known), default=0)
        known.update(ids[:end] for end in ends)
        total += len(ids) - found
    return total


@pytest.fixture
def strangers(world: Path, write_requests: Callable[..., None], history: Callable[[int], list[dict[str, Any]]]) -> Path:
    """The world with users whose histories have nothing in common."""
    days = history(120)
    for part in range(2):
        users = [10 * i + 5 * part for i in range(6)]
        rows = [(f"u{day}", days[day : day + 5], ["t1", ("t2", "t3")[day % 20 // 10]]) for day in users]
        write_requests(str(world / f"requests/part-{part}.parquet"), rows)
    return world


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_what_an_engine_with_a_cache_computes(
    strangers: Path, smollm2: Model, render: Render, layout: Layout
) -> None:
    answer_spec = replace(ANSWER_SPEC, spec=PromptSpec(layout=layout))
    questions = asked(strangers, answer_spec, render)
    for block in (16, 128):
        totals = counted(strangers, answer_spec, block)
        assert (totals.pairs, totals.questions) == (24, len(questions))
        assert totals.prompt_tokens == sum(map(len, questions))
        # Histories begin with the same century and titles with the same words, which the counter does not share.
        assert 0 <= totals.computed(layout) - computed(questions, block) <= 0.5 * block * len(questions)
    prefixes = {ids[:end] for ids in questions for end in range(1, len(ids) + 1)}
    assert len(prefixes) <= totals.distinct(layout) <= 1.1 * len(prefixes)


@pytest.mark.usefixtures("ray_cluster")
def test_layout_that_shares_more_is_cheaper(
    strangers: Path, smollm2: Model, write_requests: Callable[..., None], history: Callable[[int], list[dict[str, Any]]]
) -> None:
    def layout() -> str:
        return counted(strangers, replace(ANSWER_SPEC, spec=PromptSpec(history_length=1)), 16).cheapest_layout()

    assert layout() == "title_first"
    for file in (strangers / "requests").iterdir():
        file.unlink()
    write_requests(str(strangers / "requests/one.parquet"), [("u", history(50), ["t1", "t2", "t3"])])
    assert layout() == "user_first"
