"""What decides how a prompt reads. It is stored with a trained model and obeyed when that model scores."""

from dataclasses import dataclass
from typing import Literal

from artsel_ray.config import AssetKind, Assets
from artsel_ray.errors import InputError

Layout = Literal["title_first", "user_first"]
Output = Literal["text", "number"]


@dataclass(frozen=True)
class PromptSpec:
    """The rendering of a prompt: equal specs and equal tokenizers give equal token ids."""

    layout: Layout = "title_first"
    """Options before the history, so that all users of a title share a prefix; or the paper's order."""
    output: Output = "text"
    """The model answers with the caption's text or with the option's number."""
    reason: bool = False
    """Whether the model writes a reason before its prediction."""
    history_length: int = 50
    """Newest interactions that the prompt shows."""
    history_tokens: int = 2048
    """Most tokens of history; the oldest interactions go first."""
    caption_tokens: int = 256
    """Most tokens of a caption; the rest is cut."""
    reason_tokens: int = 256
    """Most tokens of a reason that the model writes."""
    asset_kind: AssetKind = "artwork"
    """What a title's candidates are."""
    assets: Assets = "caption"
    """What the model sees of a candidate; of pictures it answers with the number."""
    resize_to_pixels: int = 262_144
    """A picture of more pixels is scaled down to about as many, such as 330 tokens in Qwen2.5-VL."""
    template: str = "paper-1"
    """Version of the wording; changes whenever a token of any prompt would."""

    def check(self) -> None:
        """Refuses a prompt that cannot be.

        Raises:
            InputError: naming the flag.
        """
        if self.assets == "image" and self.output != "number":
            raise InputError(f"the answer to pictures is a number, not {self.output}; add --output-format number")
        if self.assets == "image" and self.layout != "title_first":
            raise InputError(f"with --layout {self.layout} a shard holds every title's pictures; take title_first")
