"""The engine of a scoring run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from artsel_ray.config import Dtype
from artsel_ray.models.load import load
from artsel_ray.score.rendering import prompt_tokenizer
from artsel_ray.score.scoring_settings import ScoringSettings

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine

EngineKind = Literal["vllm", "transformers", "fake"]


@dataclass(frozen=True)
class EngineLoader:
    """Loads a run's engine, in the actor that will hold it."""

    settings: ScoringSettings
    kind: EngineKind
    dtype: Dtype
    tensor_parallel: int
    max_candidates: int
    """Most candidates of a title."""
    fake_tokens_per_second: float | None
    """Speed that the fake engine simulates; as fast as it can if None."""

    def __call__(self) -> "Engine":
        """Returns the engine.

        Raises:
            InputError: if there is no such model on this machine.
        """
        settings = self.settings
        placeholders = prompt_tokenizer(settings.model, settings.spec).placeholders
        if self.kind == "fake":
            from artsel_ray.engines.fake import FakeEngine

            return FakeEngine(self.fake_tokens_per_second)
        path = load(settings.model).path
        if self.kind == "transformers":
            from artsel_ray.engines.torch import load_torch_engine

            return load_torch_engine(path, self.dtype, placeholders)
        from artsel_ray.engines.vllm import VllmEngine

        return VllmEngine(
            path,
            settings.max_model_length,
            max_allowed=self.max_candidates + 1,
            dtype=self.dtype,
            tensor_parallel=self.tensor_parallel,
            images=self.max_candidates if placeholders else 0,
        )
