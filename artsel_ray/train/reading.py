"""Reads examples from tables into `TrainingExamples`."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.data.checks import RowCheck, example_checks
from artsel_ray.data.images import UnusableError, locate
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer
from artsel_ray.train.examples import Title, TrainingExamples, tokenize_options

_COLUMNS = [
    *("example_id", "title_id", "title_name", "title_genres", "history", "candidates", "image_uris", "label"),
    "propensity",
]


def read_train(
    uri: str, tokenizer: PromptTokenizer, max_model_length: int, seed: int, shuffle_candidates: bool
) -> TrainingExamples:
    """Reads the examples to learn from: all of them, for what prepare and distill write is valid.

    Raises:
        InputError: if there is none, if one is invalid, if the prompt asks for rationales and an example has none, or
            if the job that wrote them has not finished.
    """
    if storage.exists(storage.join(uri, "config.json")) and storage.read_manifest(uri) is None:
        raise InputError(f"{uri} is the output of a job that has not finished; run that job's command again")
    examples = TrainingExamples(uri, tokenizer, seed, shuffle_candidates)
    return _read(_Reading(examples, max_model_length), None)


def read_validation(uri: str, tokenizer: PromptTokenizer, max_model_length: int, size: int) -> TrainingExamples:
    """Reads the first examples, at most `size`, to choose for; they need no rationales.

    Raises:
        InputError: if there is none, or one is invalid.
    """
    return _read(_Reading(TrainingExamples(uri, tokenizer), max_model_length, with_rationales=False), size)


@dataclass
class _Reading:
    """Examples that are being read."""

    examples: TrainingExamples
    max_model_length: int
    with_rationales: bool = True
    """Whether rationales are read, where the prompt asks for them."""
    known_titles: dict[tuple[Any, ...], int] = field(default_factory=dict)
    """Index into the examples' titles by what they show."""


def _read(reading: _Reading, size: int | None) -> TrainingExamples:
    examples, spec = reading.examples, reading.examples.tokenizer.spec

    def row_checks(rows: pa.Table) -> list[RowCheck]:
        return example_checks(rows, spec.assets)

    columns = [*_COLUMNS, *(["rationale"] if spec.reason and reading.with_rationales else [])]
    for table in CheckedReader(storage.list_files(examples.uri), "examples", columns, row_checks).valid_batches():
        left = len(table) if size is None else size - len(examples) - examples.too_long
        _add(reading, table.slice(0, max(left, 0)))
    if not len(examples):
        left_out = ""
        if examples.too_long:
            left_out = f"; {examples.too_long:,} are longer than {reading.max_model_length:,} tokens"
        raise InputError(f"{examples.uri} has no example to use{left_out}")
    return examples


def _add(reading: _Reading, table: pa.Table) -> None:
    """Tokenizes rows and adds those that fit the model."""
    examples, tokenizer = reading.examples, reading.examples.tokenizer
    rows = table.drop_columns(["history"]).to_pylist()
    titles = [_title(reading, row) for row in rows]
    budgets = {
        title: tokenizer.history_budget(examples.titles[title].options, reading.max_model_length)
        for title in set(titles)
    }
    budget_n = np.array([budgets[title] for title in titles], dtype=np.int64)
    histories = tokenizer.histories(table["history"], budget_n)
    for row, title, budget, history in zip(rows, titles, budget_n.tolist(), histories.ids, strict=True):
        if budget < 0:
            examples.too_long += 1
        else:
            _append(examples, row, title, history.values.to_numpy())


def _append(examples: TrainingExamples, row: dict[str, Any], title: int, history: Ids) -> None:
    """Adds one example."""
    tokenizer, options = examples.tokenizer, examples.titles[title].options
    examples.title_n.append(title)
    examples.label_n.append(row["label"])
    examples.history_n.append(history)
    examples.rationale_n.append(row.get("rationale"))
    examples.propensity_n.append(np.nan if row["propensity"] is None else row["propensity"])
    answer = len(options.answers[row["label"]]) + (tokenizer.spec.reason_tokens if tokenizer.spec.reason else 0)
    examples.length_n.append(tokenizer.fixed_tokens() + options.length + len(history) + answer)


def _title(reading: _Reading, row: dict[str, Any]) -> int:
    """Returns the index of a row's title, which is tokenized when it first occurs."""
    examples, tokenizer = reading.examples, reading.examples.tokenizer
    if "rationale" in row and not row["rationale"]:
        raise InputError(
            f"{examples.uri}: example {row['example_id']} has no rationale; run jobs/distill.py, or leave --reason out"
        )
    if tokenizer.placeholders is None:
        contents = [candidate["caption"] for candidate in row["candidates"]]
    else:
        contents = _locations(row["image_uris"], examples.uri)
    name, genres = row["title_name"], row["title_genres"]
    key = (name, tuple(genres), tuple(contents))
    if key not in reading.known_titles:
        reading.known_titles[key] = len(examples.titles)
        options = replace(tokenize_options(tokenizer, name, genres, contents), images=())
        examples.titles.append(Title(name, genres, contents, options))
    return reading.known_titles[key]


def _locations(uris: list[str], examples: str) -> list[str]:
    """Returns where an example's images are: with the settings of the examples' own storage, and no others."""
    _, mark, settings = examples.partition("?") if storage.is_uri(examples) else (examples, "", "")
    scheme = examples.partition("://")[0]
    try:
        locations = [locate(uri, "") for uri in uris]
    except UnusableError as error:
        raise InputError(f"{examples}: image_uris: {error}; run jobs/prepare.py again") from None
    return [each + mark + settings if each.startswith(f"{scheme}://") else each for each in locations]
