"""The entry point of the score job: flags become one `ScoringRun`, which is scored or priced."""

import time

from artsel_ray import storage
from artsel_ray.data.catalog import permuted, read_catalog
from artsel_ray.score.cost_estimate import estimate_cost
from artsel_ray.score.scoring_run import ScoringRun, score_requests
from artsel_ray.score.scoring_settings import resolve_settings
from artsel_ray.score.settings import ScoreConfig


def score(config: ScoreConfig) -> None:
    """Chooses an artwork for every pair of the requests, or with `--estimate-cost` estimates what that costs.

    Raises:
        InputError: for wrong input, another run's output, or too many invalid pairs.
    """
    started = time.perf_counter()
    files, titles, artworks = (storage.list_files(uri) for uri in (config.requests, config.titles, config.artworks))
    settings = resolve_settings(config)
    spec = settings.spec
    catalog, invalid = read_catalog(titles, artworks, spec.asset_kind, spec.assets, config.artworks)
    catalog = permuted(catalog, config.permutation)
    run = ScoringRun(config, files, catalog, invalid, settings, config.prompt.layout == "auto", started)
    if config.estimate_cost:
        estimate_cost(run)
    else:
        score_requests(run)
