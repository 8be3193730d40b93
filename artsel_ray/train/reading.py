"""Reads examples from tables into `TrainingExamples`."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.data.checks import example_checks
from artsel_ray.data.images import UnusableError, locate
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import PromptTokenizer
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
    columns = [*_COLUMNS, *(["rationale"] if tokenizer.spec.reason else [])]
    return _read(TrainingExamples(uri, tokenizer, seed, shuffle_candidates), columns, max_model_length, None)


def read_validation(uri: str, tokenizer: PromptTokenizer, max_model_length: int, size: int) -> TrainingExamples:
    """Reads the first examples, at most `size`, to choose for; they need no rationales.

    Raises:
        InputError: if there is none, or one is invalid.
    """
    return _read(TrainingExamples(uri, tokenizer), _COLUMNS, max_model_length, size)


def _read(examples: TrainingExamples, columns: list[str], max_model_length: int, size: int | None) -> TrainingExamples:
    assets = examples.tokenizer.spec.assets
    files = storage.list_files(examples.uri)
    reader = CheckedReader(files, "examples", columns, lambda rows: example_checks(rows, assets))
    for table in reader.valid_batches():
        left = len(table) if size is None else size - len(examples) - examples.too_long
        _add(examples, table.slice(0, max(left, 0)), max_model_length)
    if not len(examples):
        left_out = ""
        if examples.too_long:
            left_out = f"; {examples.too_long:,} are longer than {max_model_length:,} tokens"
        raise InputError(f"{examples.uri} has no example to use{left_out}")
    return examples


def _add(examples: TrainingExamples, table: pa.Table, max_model_length: int) -> None:
    """Tokenizes rows and adds those that fit the model."""
    tokenizer, spec = examples.tokenizer, examples.tokenizer.spec
    rows = table.drop_columns(["history"]).to_pylist()
    titles = [_title(examples, row) for row in rows]
    options = {title: examples.titles[title].options for title in set(titles)}
    budgets = {title: tokenizer.history_budget(each, max_model_length) for title, each in options.items()}
    histories = tokenizer.histories(table["history"], np.array([budgets[title] for title in titles], dtype=np.int64))
    for row, title, history in zip(rows, titles, histories.ids, strict=True):
        if budgets[title] < 0:
            examples.too_long += 1
            continue
        examples.title_n.append(title)
        examples.label_n.append(row["label"])
        examples.history_n.append(history.values.to_numpy())
        examples.rationale_n.append(row.get("rationale"))
        examples.propensity_n.append(np.nan if row["propensity"] is None else row["propensity"])
        answer = len(options[title].answers[row["label"]]) + (spec.reason_tokens if spec.reason else 0)
        examples.length_n.append(tokenizer.fixed_tokens() + options[title].length + len(history) + answer)


def _title(examples: TrainingExamples, row: dict[str, Any]) -> int:
    """Returns the index of a row's title, which is tokenized when it first occurs."""
    tokenizer = examples.tokenizer
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
    if key not in examples.known_titles:
        options = replace(tokenize_options(tokenizer, name, genres, contents), images=())
        examples.known_titles[key] = len(examples.titles)
        examples.titles.append(Title(name, genres, contents, options))
    return examples.known_titles[key]


def _locations(uris: list[str], examples: str) -> list[str]:
    """Returns where an example's images are: with the settings of the examples' own storage, and no others."""
    _, mark, settings = examples.partition("?") if storage.is_uri(examples) else (examples, "", "")
    scheme = examples.partition("://")[0]
    try:
        locations = [locate(uri, "") for uri in uris]
    except UnusableError as error:
        raise InputError(f"{examples}: image_uris: {error}; run jobs/prepare.py again") from None
    return [each + mark + settings if each.startswith(f"{scheme}://") else each for each in locations]
