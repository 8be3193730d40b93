"""The flags of jobs/score.py."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro
from annotated_types import Ge
from pydantic import model_validator

from artsel_ray.config import (
    DEFAULT_LIMITS,
    Count,
    EngineSettings,
    Layout,
    ModelName,
    Positive,
    PromptSettings,
    RowLimits,
    Seed,
    Share,
    Uri,
    settings,
)  # fmt: skip
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.errors import InputError

if TYPE_CHECKING:
    DecodingName = str
else:  # a new decoder is a line in `DECODERS` and nothing here
    DecodingName = Literal[tuple(DECODERS)]
_DECODINGS = " ".join(f"{name}: {decoder.description}." for name, decoder in DECODERS.items())

Exploration = Literal["none", "epsilon", "softmax"]


@settings
class ScorePrompt(PromptSettings):
    """How prompts read, where the model brings no spec.json; flags must not contradict a model that does."""

    layout: Layout | Literal["auto"] | None = None  # type: ignore[assignment]  # wider than the shared flag
    """Order of the prompt; auto takes the one that computes fewer tokens for these requests. Default: title_first."""


@settings
class ScoreEngines(EngineSettings):
    """The engines that run the model. Each is an actor of Ray Data."""

    engine: Literal["vllm", "transformers", "fake"] = "vllm"
    """transformers is slower; it is for machines without vLLM. fake returns made-up numbers, immediately or at
    --tokens-per-second, to benchmark everything but the model."""
    engine_memory: Annotated[float, Ge(0.1)] | None = None
    """Restart an engine, between two shards, when its process holds more than this many GiB. Default: never."""


@settings
class ServingSettings:
    """Which artwork is served."""

    explore: Exploration = "none"
    """Which artwork is served, with --decoding rank or labels. none: the most likely. epsilon: any, with probability
    --epsilon. softmax: drawn by the model's probabilities at --temperature. The propensity is written with it."""
    epsilon: Share = 0.05
    """Share of the pairs for which --explore epsilon draws among all candidates."""
    temperature: Positive = 1.0
    """Temperature of --explore softmax: higher explores more."""
    seed: Seed = 0
    """Seed of the draws of --explore; give a different one to every run."""


@settings
class ScoreConfig:
    """Chooses an artwork for every requested user-title pair. Run again to resume."""

    requests: Uri
    """Parquet of user_id, history, title_ids: a path or URI."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    output: Uri
    """Where part-*.parquet, rejected/ and, last, _manifest.json go: a path or URI."""
    model: ModelName
    """'smollm2' (bundled), a hub id, a local path, or the output of training (whose spec.json is then obeyed), or of
    jobs/baseline.py (whose network then scores, on CPUs)."""
    vectors: Uri | None = None
    """With a network that was trained with --encoder, where the vectors of texts are kept, so that each is computed
    once for all runs: a path or URI. Default: _vectors/ in --output."""
    image_root: tuple[Uri, ...] = ()
    """More folders or URIs that images may be read from: image_uri leads below the artworks' folder, or below one of
    these. With credentials of the environment, so name no more than the images' own."""
    decoding: Annotated[DecodingName, tyro.conf.arg(help=_DECODINGS)] = "choose"
    permutation: Annotated[int, Ge(0)] = 0
    """Number of the order in which each title's candidates are shown; 0 orders them by id. Use several, and
    jobs/evaluate.py --permutations, to measure position bias."""
    label_prior: tuple[Uri, ...] = ()
    """With --decoding labels: outputs of such runs over a few percent of the pairs, with several --permutation. How
    much the model prefers each number, whatever it stands for, is estimated from them and divided out (PriDe)."""
    prior: Uri | None = None
    """With a model that was trained with --prior, the prior's predictions for these requests, with all candidates'
    probabilities: an output of jobs/score.py --decoding rank, or a folder with such a table."""
    llm_share: Share = 1.0
    """With --prior, the share of the prior's pairs that the language model scores: those of which the prior is least
    sure. The others get the prior's choice, at no cost."""
    estimate_cost: bool = False
    """Only estimate the cost and write it to OUTPUT/plan.json: tokens in both layouts, seconds, bytes."""
    tokens_per_second: Positive | None = None
    """Throughput per engine for --estimate-cost, in tokens/s; measured on a few pairs if omitted. With --engine fake,
    the speed to simulate."""
    shard_pairs: Count = 4096
    """Maximum user-title pairs per shard, the unit redone after a failure; fewer if titles share few tokens."""
    previous: Uri | None = None
    """Output of an earlier run: pairs with the same fingerprint (model, prompt, history, candidates) are reused from
    it, the others are scored."""
    max_reject_rate: Share = 0.05
    """Stop, with exit code 1, if a larger share of the requests is invalid; a pair is its share of one."""
    limits: RowLimits = DEFAULT_LIMITS
    serving: ServingSettings = ServingSettings()
    prompt: ScorePrompt = ScorePrompt()
    engine_pool: ScoreEngines = ScoreEngines()

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        self.engine_pool.check_engine(self.engine_pool.engine)
        explore = self.serving.explore
        if explore != "none" and not DECODERS[self.decoding].gives_distribution:
            raise InputError(f"--explore {explore} needs every candidate's probability; add --decoding rank")
        if self.prior and not DECODERS[self.decoding].gives_distribution:
            raise InputError("--prior needs every candidate's probability; add --decoding rank")
        if self.llm_share < 1 and not self.prior:
            raise InputError(f"--llm-share is {self.llm_share:g}, and without --prior nothing else can choose; add it")
        if self.llm_share < 1 and self.estimate_cost:
            raise InputError("--estimate-cost is for all pairs, and --llm-share a share of them; leave --llm-share out")
        if self.label_prior and self.decoding != "labels":
            message = f"--label-prior needs --decoding labels, not {self.decoding}"
            raise InputError(message)
        return self
