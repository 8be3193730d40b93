"""The decoder protocol: its questions, its choices, and what else the rest of the package may ask of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from artsel_ray.config import Output

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine, Images, Prompts
    from artsel_ray.prompts.tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Questions:
    """N prompts, each to be answered with one of its candidates."""

    tokenizer: "PromptTokenizer"
    prompts: "Prompts"
    """[N] ids up to the answer."""
    answers: Sequence[list[list[int]]]
    """[N] lists of each candidate's answer ids; users of one title share one list object."""
    images: "Images" = ()


@dataclass(frozen=True)
class Choices:
    """The answers to N questions."""

    candidates: list[int]
    """[N] indices of the chosen candidates."""
    probabilities: list[float | None]
    """[N] probabilities of the chosen candidates; None from decoders that do not compute them."""
    distributions: list[np.ndarray] | None = None
    """[N] arrays of [M] probabilities, from decoders with `gives_distribution`."""
    unmatched: int = 0
    """Number of generated texts that resembled no candidate, for which the first candidate was chosen."""


class QuestionCost(NamedTuple):
    """What a pair costs an engine in addition to its prompt; the mean over candidates if it depends on the choice."""

    questions: float
    path_tokens: float
    """Tokens after the prompt, summed over all questions."""
    distinct_path_tokens: float
    """The same, but tokens that several questions share count once."""


class Decoder(Protocol):
    """A way to choose a candidate."""

    @property
    def description(self) -> str:
        """What it does, for the help of --decoding."""

    @property
    def gives_distribution(self) -> bool:
        """Whether `Choices.distributions` is set, which exploration needs."""

    @property
    def output(self) -> Output | None:
        """The output that prompts must ask for; None for any."""

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """Chooses a candidate for each question."""

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns what a pair with these candidates' answer ids costs, without asking an engine."""
