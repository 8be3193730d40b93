"""What decides how a prompt reads. It is stored with a trained model and obeyed when that model scores."""

from typing import Annotated, Self

from annotated_types import Ge
from pydantic import model_validator

from artsel_ray.config import AssetKind, Assets, Count, Layout, Output, settings
from artsel_ray.errors import InputError


@settings
class PromptSpec:
    """How prompts are rendered: equal specs and equal tokenizers give equal token ids."""

    layout: Layout = "title_first"
    """Order of the prompt: options before history, so that all users of a title share a prefix; or the paper's order,
    history first."""
    output: Output = "text"
    """What the model answers with: the caption's text or the option's number."""
    reason: bool = False
    """Whether the model writes a rationale before its prediction."""
    history_length: Annotated[int, Ge(0)] = 50
    """Number of most recent interactions in the prompt."""
    history_tokens: Count = 2048
    """Longest history, in tokens; the oldest interactions are dropped first."""
    caption_tokens: Count = 256
    """Longest caption, in tokens; the rest is cut."""
    reason_tokens: Count = 256
    """Longest rationale that the model writes, in tokens."""
    asset_kind: AssetKind = "artwork"
    """What a title's candidates are."""
    assets: Assets = "caption"
    """What the model sees of a candidate: its caption or its image. With images it answers with the number."""
    resize_to_pixels: Count = 262_144
    """Largest image, in pixels; a larger one is scaled down to about this many, 330 tokens in Qwen2.5-VL."""
    template: str = "paper-1"
    """Version of the wording; changes whenever a token of any prompt would."""

    @model_validator(mode="after")
    def _can_be_rendered(self) -> Self:
        if self.assets == "image" and self.output != "number":
            problem = f"--output-format is {self.output}; with --assets image the answer is a number"
            raise InputError(f"{problem}: add --output-format number")
        if self.assets == "image" and self.layout != "title_first":
            problem = f"--layout is {self.layout}; with --assets image it must be title_first"
            raise InputError(f"{problem}, because otherwise a shard would hold the images of every title")
        return self
