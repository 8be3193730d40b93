"""Reads tables of examples into memory: titles once, histories as token ids."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.data.checks import example_checks, without_propensity
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import read_footers
from artsel_ray.data.image_files import UnusableError, locate
from artsel_ray.data.priors import Prior
from artsel_ray.decoding.fusion import log_probabilities
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import EXAMPLES
from artsel_ray.train.examples import Title, TrainingExamples, tokenize_options

COLUMNS = (
    "example_id", "title_id", "title_name", "title_genres", "history", "candidates", "image_uris", "label",
    "propensity",
)  # fmt: skip


def check_columns(files: list[str], with_rationales: bool) -> None:
    """Prints which columns of examples are cast, and raises an InputError for those that cannot be read."""
    columns = [*COLUMNS, *(["rationale"] if with_rationales else [])]
    check_footers({"examples": read_footers(files)}, {"examples": [EXAMPLES.field(name) for name in columns]})


def read_train(
    uri: str, tokenizer: PromptTokenizer, max_model_length: int, seed: int, shuffle_candidates: bool,
    image_roots: Sequence[str] = (), limits: RowLimits = DEFAULT_LIMITS, prior: Prior | None = None,
) -> TrainingExamples:  # fmt: skip
    """Reads the examples to learn from: all of them, for what prepare and distill write is valid.

    Raises:
        InputError: if there is none, if one is invalid, if the prompt asks for rationales and an example has none, or
            if the job that wrote them has not finished.
    """
    if storage.exists(storage.join(uri, "config.json")) and storage.read_manifest(uri) is None:
        raise InputError(f"{uri} is the output of a job that has not finished; run that job's command again")
    columns = [*COLUMNS, *(["rationale"] if tokenizer.spec.reason else [])]
    examples = TrainingExamples(uri, tokenizer, seed, shuffle_candidates, image_roots, limits, prior)
    return read_examples(examples, columns, max_model_length, None)


def read_examples(
    examples: TrainingExamples, columns: list[str], max_model_length: int, size: int | None
) -> TrainingExamples:
    """Adds the first examples of its URI, at most `size`, to `examples`, and returns it; raises as `read_train`."""
    assets = examples.tokenizer.spec.assets
    files = storage.list_files(examples.uri)
    columns = [*columns, "user_id"] if examples.prior else columns
    reader = CheckedReader(
        files, "examples", columns, lambda rows: example_checks(rows, assets), limits=examples.limits
    )
    for table in reader.valid_batches():
        left = len(table) if size is None else size - len(examples) - examples.too_long
        used = table.slice(0, max(left, 0))
        examples.without_propensity += without_propensity(used, reader.files)
        _add(examples, used, max_model_length)
    if not len(examples):
        left_out = f"; {examples.too_long:,} are longer than {max_model_length:,} tokens" if examples.too_long else ""
        raise InputError(f"{examples.uri} has no example to use{left_out}")
    return examples


def _add(examples: TrainingExamples, table: pa.Table, max_model_length: int) -> None:
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
        if examples.prior:
            _add_prior(examples, examples.prior, row)
        examples.propensity_n.append(np.nan if row["propensity"] is None else row["propensity"])
        answer = len(options[title].answers[row["label"]]) + (spec.reason_tokens if spec.reason else 0)
        examples.length_n.append(tokenizer.fixed_tokens() + options[title].length + len(history) + answer)


def _add_prior(examples: TrainingExamples, prior: Prior, row: dict[str, Any]) -> None:
    artwork_ids = [candidate["artwork_id"] for candidate in row["candidates"]]
    found = prior.of(row["user_id"], row["title_id"], artwork_ids)
    examples.without_prior += found is None
    examples.title_ids.append(row["title_id"])
    examples.prior_n.append(
        log_probabilities(np.full(len(artwork_ids), 1 / len(artwork_ids)) if found is None else found)
    )


def _title(examples: TrainingExamples, row: dict[str, Any]) -> int:
    tokenizer = examples.tokenizer
    if "rationale" in row and not row["rationale"]:
        raise InputError(
            f"{examples.uri}: example {row['example_id']} has no rationale; run jobs/distill.py, or leave --reason out"
        )
    if tokenizer.placeholders is None:
        contents = [candidate["caption"] for candidate in row["candidates"]]
    else:
        contents = _locations(row["image_uris"], examples.uri, examples.image_roots)
    name, genres = row["title_name"], row["title_genres"]
    key = (name, tuple(genres), tuple(contents))
    if key not in examples.known_titles:
        options = replace(tokenize_options(tokenizer, name, genres, contents), images=())
        examples.known_titles[key] = len(examples.titles)
        examples.titles.append(Title(name, genres, contents, options))
    return examples.known_titles[key]


def _locations(uris: list[str], examples: str, image_roots: Sequence[str]) -> list[str]:
    try:
        return [locate(uri, (examples, *image_roots)) for uri in uris]
    except UnusableError as error:
        raise InputError(f"{examples}: image_uris: {error}; give the folder of the images as --image-root") from None
