"""The flags of jobs/distill.py."""

from typing import Annotated

from annotated_types import Ge, Gt, Le

from artsel_ray.config import (
    DEFAULT_LIMITS,
    AssetKind,
    Count,
    EngineSettings,
    ModelName,
    RowLimits,
    Seed,
    Uri,
    settings,
)


@settings
class DistillConfig:
    """Has a teacher write a rationale for each example's choice, and drops rationales that fail the teacher's own
    prediction or a check. Run again to resume.

    The sampling defaults are QwQ-32B's; docs/rationales.md has its other settings.
    """

    examples: Uri
    """Parquet of examples, such as data/examples/train: a path or URI."""
    teacher: ModelName
    """'smollm2' (bundled), a hub id such as Qwen/QwQ-32B, or a folder with a model."""
    output: Uri
    """Where part-*.parquet (examples with rationales), rejected/, summary.json and, last, _manifest.json go."""
    asset_kind: AssetKind = "artwork"
    """Kind of the examples' candidates."""
    history_length: Annotated[int, Ge(0)] = 50
    """Number of most recent interactions that the teacher sees."""
    temperature: Annotated[float, Ge(0)] = 0.6
    """Sampling temperature of the rationales; 0 is greedy."""
    top_p: Annotated[float, Gt(0), Le(1)] = 0.95
    """Nucleus sampling: sample from the most likely tokens with this total probability."""
    top_k: Annotated[int, Ge(0)] = 40
    """Sample from this many most likely tokens; 0 means all."""
    max_tokens: Count = 1024
    """Maximum tokens that the teacher generates for an example, including its thinking."""
    reason_tokens: Count = 256
    """Maximum length of a rationale, in tokens; longer ones are dropped."""
    min_words: Annotated[int, Ge(0)] = 8
    """Minimum length of a rationale, in words; shorter ones are dropped."""
    quoted_words: Count = 8
    """Drop a rationale that quotes this many consecutive words of the caption, or all words of a shorter caption."""
    shard_examples: Count = 512
    """Examples per shard: the unit that is redone after a failure."""
    seed: Seed = 0
    """Seed of the sampling; each example has its own, derived from this one and its id."""
    limits: RowLimits = DEFAULT_LIMITS
    engine_pool: EngineSettings = EngineSettings()
