"""The entry point of the score job: flags become one `ScoringRun`, which is scored or priced."""

import time

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.data.catalog import permuted, read_catalog
from artsel_ray.score.cost_estimate import estimate_cost
from artsel_ray.score.exploration import ServingPolicy
from artsel_ray.score.scoring_run import ScoringRun, score_requests
from artsel_ray.score.scoring_settings import resolve_settings
from artsel_ray.score.settings import ScoreConfig


def score(config: ScoreConfig) -> None:
    """Chooses an artwork for every pair of the requests, or with `--estimate-cost` estimates what that costs.

    Raises:
        InputError: for wrong input, another run's output, or too many invalid pairs.
    """
    run = _resolve(config, time.perf_counter())
    if config.estimate_cost:
        estimate_cost(run, config.tokens_per_second)
    else:
        score_requests(run)


def _resolve(config: ScoreConfig, started: float) -> ScoringRun:
    """Reads the catalog and prepares the model."""
    files, titles, artworks = (storage.list_files(uri) for uri in (config.requests, config.titles, config.artworks))
    settings = resolve_settings(config)
    spec = settings.spec
    catalog, invalid = read_catalog(titles, artworks, spec.asset_kind, spec.assets, config.artworks)
    return ScoringRun(
        requests=config.requests,
        files=files,
        titles=config.titles,
        artworks=config.artworks,
        catalog=permuted(catalog, config.permutation),
        invalid_catalog_rows=invalid,
        output=config.output,
        settings=settings,
        auto_layout=config.prompt.layout == "auto",
        permutation=config.permutation,
        shard_pairs=config.shard_pairs,
        previous=config.previous,
        serving=ServingPolicy(config.explore, config.epsilon, config.temperature, config.seed),
        pool=config.engine_pool,
        fake_tokens_per_second=config.tokens_per_second,
        max_reject_rate=config.max_reject_rate,
        flags=resolved(config),
        started=started,
    )
