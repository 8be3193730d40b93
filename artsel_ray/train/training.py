"""What travels to workers and back, through processes of Ray that only pass it on: importing it imports no torch."""

from dataclasses import dataclass, field

from artsel_ray.config import DEFAULT_LIMITS, PromptSettings, RowLimits
from artsel_ray.train.settings import LearningSettings, Method, OptimizationSettings


@dataclass(frozen=True)
class Training:
    """What the workers train, and where its result goes; the fields are those of `TrainConfig`."""

    method: Method
    examples: str
    model: str
    output: str
    learning_rate: float
    optimization: OptimizationSettings
    learning: LearningSettings
    prompt: PromptSettings
    image_root: tuple[str, ...] = ()
    limits: RowLimits = DEFAULT_LIMITS


@dataclass
class Fitted:
    """The result of a worker's training."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One entry for each time that something was logged, with its `step`."""
    error: str = ""
    """Why it was stopped, for the user; empty if it finished."""
    too_long: int = 0
    notices: list[str] = field(default_factory=list)
    """Lines for the user about the examples and the flags."""
