"""The flags of jobs/caption.py."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import model_validator

from artsel_ray.config import DEFAULT_LIMITS, Count, EngineSettings, ModelName, RowLimits, Share, Uri, settings

Pixels = Annotated[int, Ge(256), Le(10**9)]


@settings
class CaptionConfig:
    """Describes the images of artworks in words, with a vision-language model. Run again to resume.

    Artworks whose images cannot be used go to OUTPUT/rejected.
    """

    artworks: Uri
    """Parquet of artworks with image_uri: a path or URI."""
    model: ModelName
    """A vision-language model: a hub id such as Qwen/Qwen2.5-VL-7B-Instruct, or a folder."""
    output: Uri
    """Where part-*.parquet (the artworks with captions), rejected/, summary.json and, last, _manifest.json go."""
    titles: Uri | None = None
    """Parquet of the titles; their names are added to the prompt. Artworks of unknown titles are invalid."""
    image_root: tuple[Uri, ...] = ()
    """More folders or URIs that images may be read from: image_uri leads below the artworks' folder, or below one of
    these. With credentials of the environment, so name no more than the images' own."""
    previous: Uri | None = None
    """Output of an earlier run: captions of the same image, title name and model are reused from it."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """transformers is slower; it is for models that vLLM does not support, such as Llama-3.2-11B-Vision."""
    caption_tokens: Annotated[int, Ge(1), Le(10**5)] = 200
    """Maximum length of a caption, in tokens."""
    max_pixels: Pixels = 40_000_000
    """Images with more pixels are invalid and are not decoded."""
    resize_to_pixels: Pixels = 1_048_576
    """Larger images are scaled down to about this many pixels; fewer cost less and show less detail."""
    shard_artworks: Count = 64
    """Artworks per shard: the unit that is redone after a failure, and whose images are in memory together."""
    max_reject_rate: Share = 0.05
    """Stop, with exit code 1, if a larger share of the artworks is invalid."""
    limits: RowLimits = DEFAULT_LIMITS
    engine_pool: EngineSettings = EngineSettings()

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        self.engine_pool.check_engine(self.engine)
        return self
