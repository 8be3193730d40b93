"""What a run's requests cost in tokens, counted before anything is scored.

The lower bound computes every distinct prefix once: a title's options for all its users (`title_first`), or a user's
history for all its titles (`user_first`), and for each pair the rest. An engine's KV cache holds whole blocks of
tokens, so that every question also computes the tokens between the last whole block and the end of what it shares.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from artsel_ray.config import Layout
from artsel_ray.data import checks
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import group_files
from artsel_ray.decoding.base import QuestionCost
from artsel_ray.prompts.tokenizer import PromptTokenizer, tokenize_title
from artsel_ray.runtime.task_result import map_tasks
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.rendering import prompt_tokenizer
from artsel_ray.score.requests import read_requests

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
# Titles that one task tokenizes.
_TITLES_PER_TASK = 500
_GPU_BLOCK_TOKENS, _CPU_BLOCK_TOKENS = 16, 128


@dataclass(frozen=True)
class TokenCounts:
    """What requests cost. `further_` is the part of each pair's questions after its first one.

    The number of further questions depends on the answer where a decoder follows it: then the counts are means over
    the candidates.
    """

    pairs: float = 0
    questions: float = 0
    prompt_tokens: float = 0
    """Tokens of all questions, from the cache or computed."""
    further_questions: float = 0
    further_prompt_tokens: float = 0
    further_computed: float = 0
    history_bytes: float = 0
    """Size of the histories in the spill files."""
    title_first_distinct: float = 0
    title_first_computed: float = 0
    user_first_distinct: float = 0
    user_first_computed: float = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        both = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return TokenCounts(*(mine + others for mine, others in both))

    def distinct(self, layout: Layout) -> float:
        """Returns the tokens of all distinct prefixes, each counted once."""
        return float(getattr(self, f"{layout}_distinct"))

    def computed(self, layout: Layout) -> float:
        """Returns the tokens that an engine computes, whose cache holds whole blocks and forgets nothing."""
        return float(getattr(self, f"{layout}_computed"))

    def cheapest_layout(self) -> Layout:
        """Returns the layout in which an engine computes fewer tokens."""
        return min(LAYOUTS, key=self.computed)


@dataclass(frozen=True)
class TitleCosts:
    """What a pair of each of X titles costs: arrays [X]; `QuestionCost` explains the last three."""

    title_ids: pa.Array
    options: NDArray[np.float64]
    """Tokens of the title's line and its options."""
    budget: NDArray[np.float64]
    """Most tokens of a history; -1 where none fits."""
    questions: NDArray[np.float64]
    path_tokens: NDArray[np.float64]
    distinct_path_tokens: NDArray[np.float64]

    @property
    def asks(self) -> NDArray[np.bool_]:
        """Titles with something to ask: the prompt fits, and there is more than one candidate."""
        return (self.budget >= 0) & (self.questions > 0)

    @property
    def asked_ids(self) -> pa.Array:
        """Ids of the titles with something to ask."""
        return self.title_ids.filter(pa.array(self.asks))


@dataclass(frozen=True)
class TokenCounter:
    """Counts what requests cost, without the pairs that would be rejected."""

    answer_spec: AnswerSpec
    block_tokens: int
    """Tokens in a block of the engine's KV cache."""

    def count(self, files: list[str], costs: TitleCosts, shards: Mapping[str, int] | None = None) -> TokenCounts:
        """Counts all files of requests on Ray, given their titles' costs and numbers of `shards`, 1 by default."""
        known = ray.put(costs)

        def count_group(group: range) -> TokenCounts:
            titles = ray.get(known)
            return sum((self._count_rows(batch.valid, titles) for batch in read_requests(files, group)), TokenCounts())

        shards_x = [(shards or {}).get(title_id, 1) for title_id in costs.title_ids.to_pylist()]
        return sum(map_tasks(group_files(files), count_group), self._once(costs, np.array(shards_x, dtype=np.int64)))

    @property
    def _tokenizer(self) -> PromptTokenizer:
        return prompt_tokenizer(self.answer_spec.model, self.answer_spec.spec)

    def measure_titles(self, pairs: Counter[str], catalog: Catalog) -> TitleCosts:
        """Returns, computed on Ray, what a pair costs of each title that has pairs and is in the catalog."""
        titles = pc.index_in(pa.array(sorted(pairs), pa.string()), catalog.title_ids).drop_null().to_numpy()
        slices = [titles[start : start + _TITLES_PER_TASK] for start in range(0, len(titles), _TITLES_PER_TASK)]
        shared = ray.put(catalog)

        def measure(index: int) -> tuple[int, list[tuple[float, ...]]]:
            known, tokenizer = ray.get(shared), self._tokenizer
            return index, [self._title_cost(tokenizer, known, title) for title in slices[index].tolist()]

        by_slice = dict(map_tasks(len(slices), measure))  # tasks finish in any order
        costs = np.array([cost for index in range(len(slices)) for cost in by_slice[index]], dtype=np.float64)
        return TitleCosts(catalog.title_ids.take(pa.array(titles)), *costs.reshape(-1, 5).T)

    def _title_cost(self, tokenizer: PromptTokenizer, catalog: Catalog, title: int) -> tuple[float, ...]:
        options = tokenize_title(tokenizer, catalog, title)
        budget = tokenizer.history_budget(options, self.answer_spec.max_model_length) if options.answers else -1
        # A model that writes a rationale is asked once.
        once = self.answer_spec.spec.reason or not options.answers
        cost = QuestionCost(1, 0, 0) if once else self.answer_spec.decoder.cost(options.answers, tokenizer.option_end)
        return options.length, budget, *cost

    def _count_rows(self, table: pa.Table, costs: TitleCosts) -> TokenCounts:
        """Leaves out what is computed once per title and shard, and pairs of unknown titles or that do not fit."""
        tokenizer = self._tokenizer
        histories = tokenizer.histories(table["history"], np.full(table.num_rows, self.answer_spec.max_model_length))

        # Every pair's row and title; then only the pairs that ask something.
        wanted = table["title_ids"].combine_chunks()
        row, title = pc.list_parent_indices(wanted).to_numpy(), checks.codes(wanted.flatten(), costs.title_ids)
        row, title = row[title >= 0], title[title >= 0]
        pairs, asks = int((costs.budget[title] >= 0).sum()), costs.asks[title]
        row, title = row[asks], title[asks]

        # Lengths of the prompt's parts, in tokens.
        history = np.minimum(pc.list_value_length(histories.ids).to_numpy()[row], costs.budget[title])
        head, tail, own = len(tokenizer.head), len(tokenizer.tail), history - len(tokenizer.history_head)
        options, questions = costs.options[title], costs.questions[title]
        paths, distinct = costs.path_tokens[title], costs.distinct_path_tokens[title]
        prompt = head + options + history + tail

        # Every question after a pair's first one finds the prompt's whole blocks in the cache.
        further = (questions - 1) * (prompt % self.block_tokens) + paths
        is_first = np.diff(row, prepend=-1) != 0  # a user's first pair
        shared_by_title = head + options + len(tokenizer.history_head)
        shared_by_user = np.where(is_first, head, head + history)
        return TokenCounts(
            pairs=pairs,
            questions=questions.sum(),
            prompt_tokens=(questions * prompt + paths).sum(),
            further_questions=(questions - 1).sum(),
            further_prompt_tokens=((questions - 1) * prompt + paths).sum(),
            further_computed=further.sum(),
            history_bytes=float((np.bincount(row, minlength=table.num_rows) * _bytes(table["history"])).sum()),
            title_first_distinct=(own + tail + distinct).sum(),
            title_first_computed=(prompt - self._whole_blocks(shared_by_title) + further).sum(),
            user_first_distinct=(np.where(is_first, history, 0) + options + tail + distinct).sum(),
            user_first_computed=(prompt - self._whole_blocks(shared_by_user) + further).sum(),
        )

    def _once(self, costs: TitleCosts, shards_x: NDArray[np.int64]) -> TokenCounts:
        """Counts what is computed once: the instruction per run, a title's options per shard."""
        head, options = len(self._tokenizer.head), costs.options + len(self._tokenizer.history_head)
        computed = (self._whole_blocks(head + options) - head // self.block_tokens * self.block_tokens) * shards_x
        return TokenCounts(
            title_first_distinct=head + float(options[costs.asks].sum()),
            user_first_distinct=head,
            title_first_computed=float(computed[costs.asks].sum()),
        )

    def _whole_blocks(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        return tokens // self.block_tokens * self.block_tokens


def cache_block_tokens() -> int:
    """Returns how many tokens a block of vLLM's KV cache holds on this cluster's machines."""
    return _GPU_BLOCK_TOKENS if ray.cluster_resources().get("GPU") else _CPU_BLOCK_TOKENS


def _bytes(history: pa.ChunkedArray) -> NDArray[np.float64]:
    lengths = pc.fill_null(pc.list_value_length(history), 0).to_numpy()
    return lengths * (history.nbytes / max(lengths.sum(), 1))
