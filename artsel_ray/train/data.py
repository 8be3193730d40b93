"""Examples in memory, and made into token ids when a batch needs them.

What a title's examples share is kept once, and histories as ids: 110,000 examples of 5,000 tokens are 2 GB as token
ids, and a tenth of that in this form.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import Assets
from artsel_ray.data import checks
from artsel_ray.data.images import ArtworkImage, UnusableError, locate, read_all
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import Options, PromptTokenizer, TokenizedExample

_COLUMNS = [
    *("example_id", "title_id", "title_name", "title_genres", "history", "candidates", "image_uris", "label"),
    "propensity",
]
# What the seeded choices are for: each kind draws from its own stream.
_SHUFFLE, _REJECT, _REASON = 1, 2, 3


@dataclass(frozen=True)
class Title:
    """A title as some examples show it."""

    name: str
    genres: list[str]
    contents: list[str]
    """Of the candidates: captions, or where pictures are."""
    options: Options
    """Tokenized in the order of the contents; without pictures, which are read when they are needed."""


@dataclass(frozen=True)
class Preference:
    """An example for DPO: ids of the prompt and of two answers to it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    images: Sequence[ArtworkImage]
    """Of the prompt."""


@dataclass
class TrainingExamples:
    """N examples that fit the model, in the order in which they were read."""

    tokenizer: PromptTokenizer
    seed: int
    shuffle_candidates: bool
    titles: list[Title] = field(default_factory=list)
    title_n: list[int] = field(default_factory=list)
    """Index into `titles`."""
    label_n: list[int] = field(default_factory=list)
    history_n: list[NDArray[np.int32]] = field(default_factory=list)
    reason_n: list[str | None] = field(default_factory=list)
    length_n: list[int] = field(default_factory=list)
    """Tokens of prompt and answer."""
    propensity_n: list[float] = field(default_factory=list)
    """NaN where it is not known."""
    too_long: int = 0
    """Examples that were left out: they don't fit the model even without a history."""

    def __len__(self) -> int:
        """Returns N."""
        return len(self.label_n)

    def example(self, index: int, epoch: int = 0) -> TokenizedExample:
        """Returns an example of SFT."""
        options, order = self._options(index, epoch)
        answer = options.answers[order.index(self.label_n[index])]
        return self.tokenizer.example(options, self.history_n[index], answer, self._reason(index))

    def preference(self, index: int, epoch: int, rejected: int, rejected_reason: str | None) -> Preference:
        """Returns an example of DPO with this rejected candidate, by its place among the stored candidates."""
        options, order = self._options(index, epoch)
        encoded = [
            self.tokenizer.example(options, self.history_n[index], options.answers[order.index(place)], reason)
            for place, reason in ((self.label_n[index], self._reason(index)), (rejected, rejected_reason))
        ]
        prompt = encoded[0].supervised.index(True)
        ids = encoded[0].ids
        return Preference(ids[:prompt], ids[prompt:], encoded[1].ids[prompt:], options.images)

    def prompt(self, index: int) -> NDArray[np.int32]:
        """Returns the prompt as scoring renders it: candidates in their stored order."""
        return self.tokenizer.prompt(self.titles[self.title_n[index]].options.prefix, self.history_n[index])

    def images(self, index: int) -> Sequence[ArtworkImage]:
        """Returns the pictures of `prompt`."""
        return self._seen(self.titles[self.title_n[index]].contents)

    def _seen(self, contents: list[str]) -> Sequence[ArtworkImage]:
        if self.tokenizer.placeholders is None:
            return ()
        return _read_images(self.tokenizer, contents)

    def _reason(self, index: int) -> str | None:
        return self.reason_n[index] if self.tokenizer.spec.reason else None

    def _options(self, index: int, epoch: int) -> tuple[Options, list[int]]:
        """Returns the options in the order of this epoch, and which stored candidate stands at each place."""
        title = self.titles[self.title_n[index]]
        if not self.shuffle_candidates:
            options = replace(title.options, images=self._seen(title.contents))
            return options, list(range(len(title.contents)))
        order = np.random.default_rng([self.seed, _SHUFFLE, epoch, index]).permutation(len(title.contents)).tolist()
        return _tokenize(self.tokenizer, title.name, title.genres, [title.contents[place] for place in order]), order


def _tokenize(tokenizer: PromptTokenizer, name: str, genres: list[str], contents: list[str]) -> Options:
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents)
    return tokenizer.image_options(name, genres, _read_images(tokenizer, contents))


def _read_images(tokenizer: PromptTokenizer, uris: list[str]) -> list[ArtworkImage]:
    try:
        return read_all(uris, tokenizer.spec.resize_to_pixels)
    except UnusableError as error:
        raise InputError(f"{error}; bring the picture back, or prepare anew") from None


def _located(uris: list[str], examples: str) -> list[str]:
    """Returns where an example's pictures are: with the settings of the examples' own storage, and no others."""
    _, mark, settings = examples.partition("?") if storage.is_uri(examples) else (examples, "", "")
    scheme = examples.partition("://")[0]
    try:
        places = [locate(uri, "") for uri in uris]
    except UnusableError as error:
        raise InputError(f"{examples}: image_uris: {error}; prepare anew") from None
    return [place + mark + settings if place.startswith(f"{scheme}://") else place for place in places]


def read_train(
    uri: str, tokenizer: PromptTokenizer, max_model_length: int, seed: int, shuffle_candidates: bool
) -> TrainingExamples:
    """Reads the examples to learn from.

    Raises:
        InputError: if there is none, if one cannot be used, if the prompt asks for reasons and an example has none, or
            if the job that wrote them has not finished.
    """
    if storage.exists(storage.join(uri, "config.json")) and storage.read_manifest(uri) is None:
        raise InputError(f"{uri} is of a job that has not finished; run the same command again")
    examples = TrainingExamples(tokenizer, seed, shuffle_candidates)
    return _read(examples, uri, max_model_length, ["reason"] if tokenizer.spec.reason else [], None)


def read_validation(uri: str, tokenizer: PromptTokenizer, max_model_length: int, most: int) -> TrainingExamples:
    """Reads at most so many examples to choose for; they need no reasons.

    Raises:
        InputError: if there is none, or one cannot be used.
    """
    return _read(TrainingExamples(tokenizer, 0, False), uri, max_model_length, [], most)


def _read(
    examples: TrainingExamples, uri: str, max_model_length: int, more_columns: list[str], most: int | None
) -> TrainingExamples:
    known: dict[tuple, int] = {}
    for file in storage.list_files(uri):
        for first_row, table in storage.iter_batches(file, "examples", [*_COLUMNS, *more_columns]):
            _refuse_unusable(table, file, first_row, examples.tokenizer.spec.assets)
            budget = len(table) if most is None else most - len(examples) - examples.too_long
            _add(examples, known, table.slice(0, max(budget, 0)), max_model_length, uri)
    if not len(examples):
        left_out = f"; {examples.too_long:,} are longer than {max_model_length:,} tokens" if examples.too_long else ""
        raise InputError(f"{uri} has no example to use{left_out}")
    return examples


def _refuse_unusable(table: pa.Table, file: str, first_row: int, assets: Assets) -> None:
    """Training learns from all its examples or not at all: what prepare and distill write has passed these checks."""
    for column, reason, bad in checks.example_checks(table, assets):
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{file}: row {first_row + row} (from 0), example {table['example_id'][row]}, column '{column}': "
                f"{reason}; mend the row or leave it out"
            )


def _add(examples: TrainingExamples, known: dict[tuple, int], table: pa.Table, max_model_length: int, uri: str) -> None:
    tokenizer, rows = examples.tokenizer, table.drop_columns(["history"]).to_pylist()
    titles = []
    for row in rows:
        if tokenizer.placeholders is None:
            contents = [candidate["caption"] for candidate in row["candidates"]]
        else:
            contents = _located(row["image_uris"], uri)
        if "reason" in row and not row["reason"]:
            raise InputError(f"example {row['example_id']} has no reason; run jobs/distill.py, or leave --reason out")
        key = (row["title_name"], tuple(row["title_genres"]), tuple(contents))
        if key not in known:
            known[key] = len(examples.titles)
            options = replace(_tokenize(tokenizer, row["title_name"], row["title_genres"], contents), images=())
            examples.titles.append(Title(row["title_name"], row["title_genres"], contents, options))
        titles.append(known[key])
    budgets = {
        title: tokenizer.history_budget(examples.titles[title].options, max_model_length) for title in set(titles)
    }
    budget_n = np.array([budgets[title] for title in titles], dtype=np.int64)
    histories = tokenizer.histories(table["history"], budget_n)
    for row, title, budget, history in zip(rows, titles, budget_n.tolist(), histories.ids, strict=True):
        if budget < 0:
            examples.too_long += 1
            continue
        options = examples.titles[title].options
        examples.title_n.append(title)
        examples.label_n.append(row["label"])
        examples.history_n.append(history.values.to_numpy())
        examples.reason_n.append(row.get("reason"))
        examples.propensity_n.append(np.nan if row["propensity"] is None else row["propensity"])
        answer = len(options.answers[row["label"]]) + (tokenizer.spec.reason_tokens if tokenizer.spec.reason else 0)
        examples.length_n.append(tokenizer.fixed_tokens() + options.length + len(history.values) + answer)


class Rejections:
    """Draws the candidate, and its reason, that each example's DPO rejects."""

    def __init__(self, examples: TrainingExamples, how: str) -> None:
        """Takes examples and `uniform` or `logged` (see `TrainConfig.rejected`)."""
        self._examples, self._how = examples, how
        logged: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self._reasons: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        columns = (examples.title_n, examples.label_n, examples.propensity_n, examples.reason_n)
        for title, label, propensity, reason in zip(*columns, strict=True):
            if np.isfinite(propensity):
                logged[title, label].append(propensity)
            if reason:
                self._reasons[title, label].append(reason)
        self._propensity = {key: float(np.mean(values)) for key, values in logged.items()}

    def usable(self) -> list[int]:
        """Returns the examples whose title has another candidate."""
        examples = self._examples
        return [index for index, title in enumerate(examples.title_n) if len(examples.titles[title].contents) > 1]

    def draw(self, index: int, epoch: int) -> tuple[int, str | None]:
        """Returns the rejected candidate's place, and what speaks for it.

        A reason for it is one that was written for another example of the title whose user engaged with it; where
        there is none it is the example's own, so that only the prediction differs.
        """
        examples = self._examples
        title, label = examples.title_n[index], examples.label_n[index]
        weights = np.ones(len(examples.titles[title].contents))
        if self._how == "logged":
            weights = np.array([self._propensity.get((title, place), 0.0) for place in range(len(weights))])
        weights[label] = 0.0
        if not weights.any():  # nothing else of this title was ever logged
            weights = np.ones(len(weights))
            weights[label] = 0.0
        rng = np.random.default_rng([examples.seed, _REJECT, epoch, index])
        rejected = int(rng.choice(len(weights), p=weights / weights.sum()))
        if not examples.tokenizer.spec.reason:
            return rejected, None
        reasons = self._reasons.get((title, rejected))
        if not reasons:
            return rejected, examples.reason_n[index]
        return rejected, reasons[
            int(np.random.default_rng([examples.seed, _REASON, epoch, index]).integers(len(reasons)))
        ]
