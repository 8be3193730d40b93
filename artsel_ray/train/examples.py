"""Examples in memory, and turned into token ids when a batch needs them.

What a title's examples share is stored once, and histories as ids: 110,000 examples of 5,000 tokens are 2 GB as token
ids, and a tenth of that in this form.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data.image_files import UnusableError
from artsel_ray.data.images import ArtworkImage, read_all
from artsel_ray.data.priors import Prior
from artsel_ray.errors import InputError
from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer, TokenizedExample

# Streams of random numbers, one for each kind of choice, so that no two kinds of choices depend on each other.
SHUFFLE_STREAM, REJECTED_STREAM, RATIONALE_STREAM, GROUP_STREAM = 1, 2, 3, 4

Batch = dict[str, Any]
"""Tensors, and packed rows."""


@dataclass(frozen=True)
class Title:
    """A title as some examples show it."""

    name: str
    genres: list[str]
    contents: list[str]
    """The candidates' captions, or the locations of their images."""
    options: Options
    """The title's tokens, in the order of the contents; without images, which are read when a batch needs them."""


@dataclass(frozen=True)
class Preference:
    """Ids of a prompt and of two answers to it, for DPO."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    images: Sequence[ArtworkImage]
    """The prompt's images, in the order of their placeholders."""


@dataclass(frozen=True)
class Question:
    """Ids of a prompt, and the answers to choose from."""

    prompt: list[int]
    """Image placeholders expanded."""
    answers: list[list[int]]
    """[M] ids of each candidate's answer, in the order of the prompt."""
    label: int
    """Index of the engaged candidate in that order."""
    images: Sequence[ArtworkImage]
    prior: NDArray[np.float64] | None = None
    """[M] the prior's log-probabilities, in that order."""


@dataclass
class TrainingExamples:
    """N examples that fit the model, in the order in which they were read."""

    uri: str
    tokenizer: PromptTokenizer
    seed: int = 0
    shuffle_candidates: bool = False
    """Whether candidates have a new order in every epoch."""
    image_roots: Sequence[str] = ()
    """Folders outside of the examples' own that images may be in."""
    limits: RowLimits = DEFAULT_LIMITS
    prior: Prior | None = None
    title_ids: list[str] = field(default_factory=list)
    """[N] with a prior only, as the next."""
    prior_n: list[NDArray[np.float64]] = field(default_factory=list)
    """Log-probabilities of the candidates in their stored order; equal where the prior does not know the pair."""
    without_prior: int = 0
    """Number of examples whose pair the prior does not know."""
    titles: list[Title] = field(default_factory=list)
    known_titles: dict[tuple[Any, ...], int] = field(default_factory=dict)
    """Index into `titles` by what they show."""
    known_same: dict[tuple[int, int], NDArray[np.bool_]] = field(default_factory=dict)
    """`same_answers`, by title and label."""
    title_n: list[int] = field(default_factory=list)
    """Index into `titles`."""
    label_n: list[int] = field(default_factory=list)
    """Index of the engaged candidate in its stored order."""
    history_n: list[Ids] = field(default_factory=list)
    rationale_n: list[str | None] = field(default_factory=list)
    length_n: list[int] = field(default_factory=list)
    """Tokens of prompt and answer."""
    propensity_n: list[float] = field(default_factory=list)
    """NaN where it is unknown."""
    too_long: int = 0
    """Number of examples left out because they don't fit the model even without a history."""
    without_propensity: Counter[str] = field(default_factory=Counter)
    """Number of examples without a propensity, by file."""
    notices: list[str] = field(default_factory=list)
    """Lines for the user about the examples."""

    def __len__(self) -> int:
        return len(self.label_n)

    def title(self, index: int) -> Title:
        """Returns an example's title."""
        return self.titles[self.title_n[index]]

    def same_answers(self, index: int) -> NDArray[np.bool_]:
        """Returns which candidates read the same as the engaged one, which itself is among them: [M]."""
        label, key = self.label_n[index], (self.title_n[index], self.label_n[index])
        if key not in self.known_same:
            contents, answers = [escape(content) for content in self.title(index).contents], self.answers(index)
            pairs = zip(contents, answers, strict=True)
            same = [content == contents[label] or ids == answers[label] for content, ids in pairs]
            self.known_same[key] = np.array(same)
        return self.known_same[key]

    def right_answers(self, index: int) -> NDArray[np.bool_]:
        """Returns which candidates count as the engaged one when chosen: [M].

        Those that read the same; where all of a title do, none can be chosen by what it reads, and it is alone.
        """
        same = self.same_answers(index)
        return np.arange(len(same)) == self.label_n[index] if same.all() else same

    def comparable(self) -> list[int]:
        """Returns the indices of examples whose title has a candidate that reads differently from the engaged one."""
        return [index for index in range(len(self)) if not self.same_answers(index).all()]

    def example(self, index: int, epoch: int = 0, key: int | None = None) -> TokenizedExample:
        """Returns an example for SFT; its candidates' order is drawn by `key`, which is its index unless given."""
        options, order = self._options(index, epoch, key)
        answer = options.answers[order.index(self.label_n[index])]
        return self.tokenizer.example(options, self.history_n[index], answer, self._rationale(index))

    def preference(
        self, index: int, epoch: int, rejected: int, rejected_rationale: str | None, key: int | None = None
    ) -> Preference:
        """Returns an example for DPO; `rejected` is the rejected candidate's index in its stored order."""
        options, order = self._options(index, epoch, key)
        answers = ((self.label_n[index], self._rationale(index)), (rejected, rejected_rationale))
        chosen, other = (
            self.tokenizer.example(options, self.history_n[index], options.answers[order.index(candidate)], rationale)
            for candidate, rationale in answers
        )
        prompt = chosen.supervised.index(True)
        return Preference(chosen.ids[:prompt], chosen.ids[prompt:], other.ids[prompt:], options.images)

    def question(self, index: int, epoch: int, key: int) -> Question:
        """Returns an example for the objective `choice`; `key` as for `example`."""
        options, order = self._options(index, epoch, key)
        ids = self.tokenizer.prompt(options.prefix, self.history_n[index])
        placeholders = self.tokenizer.placeholders
        prompt = (placeholders.expand(ids, options.images) if placeholders else ids).tolist()
        prior = self.prior_n[index][order] if self.prior_n else None
        return Question(prompt, options.answers, order.index(self.label_n[index]), options.images, prior)

    def prompt(self, index: int) -> Ids:
        """Returns the prompt as scoring renders it: candidates in their stored order."""
        return self.tokenizer.prompt(self.title(index).options.prefix, self.history_n[index])

    def images(self, index: int) -> Sequence[ArtworkImage]:
        """Returns the images of `prompt`; none where candidates are captions."""
        return read_images(self.tokenizer, self.title(index).contents)

    def answers(self, index: int) -> list[list[int]]:
        """Returns each candidate's answer in their stored order; examples of one title share one list."""
        return self.title(index).options.answers

    def with_images(self, batch: Batch, images: list[Sequence[ArtworkImage]]) -> Batch:
        """Returns a batch with the tensors of each row's images, where candidates are images."""
        placeholders = self.tokenizer.placeholders
        return batch if placeholders is None else batch | placeholders.inputs(batch["input_ids"], images)

    def _rationale(self, index: int) -> str | None:
        return self.rationale_n[index] if self.tokenizer.spec.reason else None

    def _options(self, index: int, epoch: int, key: int | None) -> tuple[Options, list[int]]:
        """Returns the options in the order of an epoch, and the stored index of the candidate at each position."""
        title = self.title(index)
        if not self.shuffle_candidates:
            return replace(title.options, images=self.images(index)), list(range(len(title.contents)))
        rng = np.random.default_rng([self.seed, SHUFFLE_STREAM, epoch, index if key is None else key])
        order = rng.permutation(len(title.contents)).tolist()
        contents = [title.contents[candidate] for candidate in order]
        return tokenize_options(self.tokenizer, title.name, title.genres, contents), order


def tokenize_options(tokenizer: PromptTokenizer, name: str, genres: list[str], contents: list[str]) -> Options:
    """Tokenizes a title with its candidates: captions, or where the model sees images those at these locations."""
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents)
    return tokenizer.image_options(name, genres, read_images(tokenizer, contents))


def read_images(tokenizer: PromptTokenizer, locations: list[str]) -> Sequence[ArtworkImage]:
    """Reads a title's images in the size that the prompt shows them; none where candidates are captions."""
    if tokenizer.placeholders is None:
        return ()
    try:
        return read_all(locations, tokenizer.spec.resize_to_pixels)
    except UnusableError as error:
        raise InputError(f"{error}; restore the image, or run jobs/prepare.py again") from None
