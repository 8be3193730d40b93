"""The entry point of the score job: flags become one `ScoringRun`, which is scored or priced."""

import dataclasses
import time

import numpy as np

from artsel_ray import storage
from artsel_ray.config import RowLimits, flag, resolved
from artsel_ray.data.catalog import Catalog, permuted, read_catalog
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import read_footers
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.models.prior_weights import read_prior_weights
from artsel_ray.models.weights import model_length, prompt_tokenizer
from artsel_ray.network.network_files import find_network
from artsel_ray.runtime.run import prediction_files
from artsel_ray.score.answer_spec import AnswerSpec, PriorSpec, prompt_spec, read_label_prior
from artsel_ray.score.cost_estimate import estimate_cost
from artsel_ray.score.network import NetworkSpec, network_spec
from artsel_ray.score.prior import survey
from artsel_ray.score.scoring_run import ScoringRun, score_requests
from artsel_ray.score.settings import ScoreConfig, ScorePrompt


def score(config: ScoreConfig) -> None:
    """Chooses an artwork for every pair of the requests, or with `--estimate-cost` estimates what that costs.

    Raises:
        InputError: for wrong input, another run's output, or too many invalid pairs.
    """
    started = time.perf_counter()
    files, titles, artworks = (storage.list_files(uri) for uri in (config.requests, config.titles, config.artworks))
    check_footers({"requests": read_footers(files)})  # on the driver: the output of Ray's workers is not shown
    if network := find_network(config.model):
        _check_flags(config, network)
        kind = config.prompt.asset_kind or "artwork"
        answer_spec: AnswerSpec | NetworkSpec = network_spec(network, config.decoding, kind)
        catalog, invalid = read_catalog(titles, artworks, kind, limits=config.limits)
    else:
        answer_spec = resolve_answer_spec(config)
        spec, roots = answer_spec.spec, (storage.folder(config.artworks), *config.image_root)
        catalog, invalid = read_catalog(titles, artworks, spec.asset_kind, spec.assets, roots, config.limits)
        _warn_beyond_prior(answer_spec.label_prior, catalog)
    if config.vectors and not (isinstance(answer_spec, NetworkSpec) and answer_spec.encoder):
        raise InputError(f"--vectors is for networks that were trained with --encoder, and {config.model} was not")
    catalog = permuted(catalog, config.permutation)
    run = ScoringRun(config, files, catalog, invalid, answer_spec, config.prompt.layout == "auto", started)
    if config.estimate_cost:
        estimate_cost(run)
    else:
        score_requests(run)


def resolve_answer_spec(config: ScoreConfig) -> AnswerSpec:
    """Prepares the model on this machine and settles how its prompts read.

    Raises:
        InputError: if there is no such model, it does not fit the flags, or a label prior cannot be read.
    """
    model = load(config.model)
    spec, auto_layout = prompt_spec(model, config.model, config.prompt, config.decoding), config.prompt.layout == "auto"
    prompts = prompt_tokenizer(model.base, spec)  # refuses a model that takes no images before anything is written
    model_id = "fake" if config.engine_pool.engine == "fake" else model.model_id + config.engine_pool.precision
    prior = read_label_prior(config.label_prior, model_id, spec, auto_layout) if config.label_prior else ()
    return AnswerSpec(
        model=config.model,
        model_id=model_id,
        spec=spec,
        max_model_length=min(config.engine_pool.max_model_length, model_length(model.base)),
        decoding=config.decoding,
        label_prior=prior,
        engine=config.engine_pool.engine,
        dtype=config.engine_pool.dtype,
        frame=storage.fingerprint(prompts.frame()),
        prior=_prior_spec(config.model, config.prior, config.llm_share, config.limits),
        has_clock=prompts.writes_time,
    )


def _prior_spec(model: str, prior: str | None, llm_share: float, limits: RowLimits) -> PriorSpec | None:
    weights = read_prior_weights(model)
    if prior is None:
        if weights:
            on_top = f"{model} was trained on top of a prior, and without --prior it scores alone"
            print(f"warning: {on_top}: give the prior's predictions for these requests", flush=True)
        return None
    if weights is None:
        how = "train it with --prior (with --no-prior-in-loss only the weights are fitted)"
        raise InputError(f"{model} was trained without --prior, and nothing says how much each counts; {how}")
    found = survey(prediction_files(prior), limits)
    if other := sorted(found.model_ids - set(weights.prior_ids)):
        known = ", ".join(weights.prior_ids)
        print(
            f"warning: --prior is of {', '.join(other)}, and the weights of {model} were fitted for {known}", flush=True
        )
    return PriorSpec(weights, found.sure_above(llm_share))


def _check_flags(config: ScoreConfig, network: str) -> None:
    """Makes sure that no flag is given that means nothing to a network.

    Raises:
        InputError: naming the first such flag.
    """
    flags = resolved(dataclasses.replace(config.prompt, asset_kind=None))
    prompt = [name for name, value in flags.items() if value != getattr(ScorePrompt(), name)]
    if prompt:
        raise InputError(f"{flag(prompt[0])} is for prompts, and {network} is a network, which has none; leave it out")
    if config.engine_pool.engine == "fake":
        raise InputError(f"--engine fake stands for a language model, and {network} is a network; leave it out")
    if config.prior:
        raise InputError(f"--prior is for language models, and {network} is a network; leave it out")
    if config.estimate_cost:
        raise InputError(f"--estimate-cost counts tokens, and {network} is a network, which takes none; leave it out")
    if config.decoding not in ("choose", "rank"):
        raise InputError(f"--decoding {config.decoding} is for language models, and {network} is a network; take rank")


def _warn_beyond_prior(label_prior: tuple[float, ...], catalog: Catalog) -> None:
    most = int(np.diff(catalog.offsets).max(initial=0))
    if label_prior and most > len(label_prior):
        known = f"--label-prior covers the numbers 1 to {len(label_prior)}, and a title has {most} candidates"
        print(f"warning: {known}; further numbers count as the mean of these", flush=True)
