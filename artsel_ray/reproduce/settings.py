"""The flags of jobs/reproduce.py."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import model_validator

from artsel_ray.config import Count, EngineSettings, ModelName, Seed, Uri, settings
from artsel_ray.errors import InputError

_MAX_MODELS = 2


@settings
class ReproduceConfig:
    """Runs what the paper's Tables 1 to 4 and Figure 1 need, and shows our numbers next to the paper's.

    Run again to resume: finished runs are kept, failed ones are retried. docs/reproduce.md lists the runs.
    """

    output: Uri
    """Where report.html, results.parquet and all intermediate results go: a path or URI."""
    scale: Literal["smoke", "small", "paper"] = "smoke"
    """smoke: a tiny random model, in minutes; checks that all runs work. small: SmolLM2 and 10,000 examples. paper:
    Llama 3.2 3B and 3.1 8B, 110,000 examples."""
    table: Literal["1", "2", "3", "4", "figure1", "all"] = "all"
    """Table or figure to reproduce."""
    models: tuple[ModelName, ...] = ()
    """One or two models, in place of the paper's 3B and 8B. Default: the scale's."""
    teacher: ModelName | None = None
    """Model that writes the rationales. Default: the scale's."""
    world: Uri | None = None
    """Folder with your own titles/, artworks/, interactions/ and impressions/. Default: a simulated world."""
    workers: Count = 1
    """Processes of each training; smoke trains in the job's own process."""
    gpus_per_worker: Annotated[int, Ge(0), Le(1)] | None = None
    """GPUs for each training process, 0 or 1. Default: 1 if the cluster has GPUs, else 0."""
    engine_pool: EngineSettings = EngineSettings()
    seed: Seed = 0
    """Seed of the world, the splits, the trainings and the bootstrap."""

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        if len(self.models) > _MAX_MODELS:
            raise InputError(f"--models names {len(self.models)} models; it must be one or two")
        return self
