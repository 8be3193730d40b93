"""Examples in memory, turned into token ids when a batch needs them.

What a title's examples share is stored once, and histories as ids: 110,000 examples of 5,000 tokens are 2 GB as token
ids, and a tenth of that in this form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from artsel_ray.data.images import ArtworkImage, UnusableError, read_all
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer, TokenizedExample

# Streams of random numbers, one for each kind of choice, so that no two kinds of choices depend on each other.
SHUFFLE_STREAM, REJECTED_STREAM, RATIONALE_STREAM = 1, 2, 3


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


@dataclass
class TrainingExamples:
    """N examples that fit the model, in the order in which they were read."""

    uri: str
    """Where they come from, for messages."""
    tokenizer: PromptTokenizer
    seed: int = 0
    shuffle_candidates: bool = False
    """Whether candidates have a new order in every epoch."""
    titles: list[Title] = field(default_factory=list)
    known_titles: dict[tuple[Any, ...], int] = field(default_factory=dict)
    """Index into `titles` by what they show."""
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

    def __len__(self) -> int:
        return len(self.label_n)

    def title(self, index: int) -> Title:
        """Returns an example's title."""
        return self.titles[self.title_n[index]]

    def example(self, index: int, epoch: int = 0) -> TokenizedExample:
        """Returns an example for SFT."""
        options, order = self._options(index, epoch)
        answer = options.answers[order.index(self.label_n[index])]
        return self.tokenizer.example(options, self.history_n[index], answer, self._rationale(index))

    def preference(self, index: int, epoch: int, rejected: int, rejected_rationale: str | None) -> Preference:
        """Returns an example for DPO.

        Args:
            rejected: index of the rejected candidate in its stored order.
            rejected_rationale: what speaks for it, where the model writes rationales.
        """
        options, order = self._options(index, epoch)
        answers = ((self.label_n[index], self._rationale(index)), (rejected, rejected_rationale))
        chosen, other = (
            self.tokenizer.example(options, self.history_n[index], options.answers[order.index(candidate)], rationale)
            for candidate, rationale in answers
        )
        prompt = chosen.supervised.index(True)
        return Preference(chosen.ids[:prompt], chosen.ids[prompt:], other.ids[prompt:], options.images)

    def prompt(self, index: int) -> Ids:
        """Returns the prompt as scoring renders it: candidates in their stored order."""
        return self.tokenizer.prompt(self.title(index).options.prefix, self.history_n[index])

    def images(self, index: int) -> Sequence[ArtworkImage]:
        """Returns the images of `prompt`; none where candidates are captions."""
        return self._images(self.title(index).contents)

    def answers(self, index: int) -> list[list[int]]:
        """Returns each candidate's answer in their stored order; examples of one title share one list."""
        return self.title(index).options.answers

    def with_images(
        self, batch: dict[str, torch.Tensor], images: list[Sequence[ArtworkImage]]
    ) -> dict[str, torch.Tensor]:
        """Returns a batch with the tensors of each row's images, where candidates are images."""
        placeholders = self.tokenizer.placeholders
        return batch if placeholders is None else batch | placeholders.inputs(batch["input_ids"], images)

    def _images(self, contents: list[str]) -> Sequence[ArtworkImage]:
        return () if self.tokenizer.placeholders is None else read_images(self.tokenizer, contents)

    def _rationale(self, index: int) -> str | None:
        return self.rationale_n[index] if self.tokenizer.spec.reason else None

    def _options(self, index: int, epoch: int) -> tuple[Options, list[int]]:
        """Returns the options in the order of an epoch, and the stored index of the candidate at each position."""
        title = self.title(index)
        if not self.shuffle_candidates:
            return replace(title.options, images=self._images(title.contents)), list(range(len(title.contents)))
        rng = np.random.default_rng([self.seed, SHUFFLE_STREAM, epoch, index])
        order = rng.permutation(len(title.contents)).tolist()
        contents = [title.contents[candidate] for candidate in order]
        return tokenize_options(self.tokenizer, title.name, title.genres, contents), order


def tokenize_options(tokenizer: PromptTokenizer, name: str, genres: list[str], contents: list[str]) -> Options:
    """Tokenizes a title with its candidates: captions, or where the model sees images those at these locations."""
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents)
    return tokenizer.image_options(name, genres, read_images(tokenizer, contents))


def read_images(tokenizer: PromptTokenizer, locations: list[str]) -> list[ArtworkImage]:
    """Reads a title's images in the size that the prompt shows them; raises an InputError if one cannot be used."""
    try:
        return read_all(locations, tokenizer.spec.resize_to_pixels)
    except UnusableError as error:
        raise InputError(f"{error}; restore the image, or run jobs/prepare.py again") from None
