"""What a decoder is given, what it returns, and what else the rest of the package may ask of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from artsel_ray.config import Output

if TYPE_CHECKING:
    from artsel_ray.data.images import ArtworkImage
    from artsel_ray.engines.base import Engine
    from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer


@dataclass(frozen=True)
class Questions:
    """N prompts, each to be answered with one of its candidates."""

    tokenizer: "PromptTokenizer"
    prompts: "Sequence[Ids]"
    """[N] ids up to the answer."""
    answers: Sequence[list[list[int]]]
    """[N] each candidate's ids of the answer; users of one title share one list."""
    images: "Sequence[Sequence[ArtworkImage]]" = ()
    """[N] each prompt's images, where the candidates are images."""


@dataclass(frozen=True)
class Choices:
    """The decoder's answers to N questions."""

    candidates: list[int]
    probabilities: list[float | None]
    distributions: list[np.ndarray] | None = None
    """[N] arrays of [M] probabilities, from decoders that give them."""
    unmatched: int = 0
    """Generated texts that resembled no candidate; the first candidate is taken for them."""


class QuestionCost(NamedTuple):
    """What one pair costs an engine beyond its prompt; means over the candidates where the answer decides."""

    questions: float
    """Requests to the engine."""
    path_tokens: float
    """Tokens after the prompt, summed over all requests."""
    distinct_path_tokens: float
    """The same, with tokens that requests share counted once."""


class Decoder(Protocol):
    """A way to choose a candidate. A new one is a module with such a class, and a line in `decoders.DECODERS`."""

    @property
    def gives_distribution(self) -> bool:
        """Whether it returns every candidate's probability, which exploration needs."""
        ...

    @property
    def output(self) -> Output | None:
        """The output that a model must have been trained for; None if any."""
        ...

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """Chooses a candidate for each question."""
        ...

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns what a pair with these candidates costs, before anything is asked."""
        ...
