"""What a run's answers depend on apart from the data: model, prompt, decoding, limits and label prior."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.data.priors import KnownPrior
from artsel_ray.decoding import label_prior
from artsel_ray.decoding.base import Decoder
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.prior_weights import PriorWeights
from artsel_ray.models.spec import resolve_prompt_spec
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime.fingerprint_key import is_keyed
from artsel_ray.runtime.run import CONFIG, finished_parts
from artsel_ray.score.settings import ScorePrompt


@dataclass(frozen=True)
class PriorSpec:
    """How a prior takes part."""

    weights: PriorWeights
    sure_above: float = math.inf
    """The prior alone chooses where its most likely candidate is more probable than this."""

    def is_sure(self, known: KnownPrior | None) -> bool:
        """Whether the prior alone chooses for a pair."""
        return known is not None and known.top > self.sure_above


@dataclass(frozen=True)
class AnswerSpec:
    """What rendering, decoding and the engine depend on."""

    model: str
    """Name, path or URI of the model."""
    model_id: str
    spec: PromptSpec
    max_model_length: int
    """Longest prompt and answer together, in tokens."""
    decoding: str
    """A name in `DECODERS`."""
    label_prior: tuple[float, ...] = ()
    """The model's preference for each option number, divided out of its answers; empty to leave them as they are."""
    engine: str = "vllm"
    dtype: str = "auto"
    """Number format of the weights; `auto` is the model's own, once it is known that the engines run on GPUs."""
    frame: str = ""
    """Digest of the token ids that all prompts share: the rendered chat template with its date, and the wording."""
    prior: PriorSpec | None = None
    has_clock: bool = False
    """Whether the chat template writes the time. Runs of versions that did not pin it have prompts of several days."""

    @property
    def decoder(self) -> Decoder:
        """What `decoding` names."""
        return DECODERS[self.decoding]

    def identity(self) -> dict[str, Any]:
        """Returns what answers depend on apart from the data, for a run's identity and a pair's fingerprint."""
        identity: dict[str, Any] = {
            "model": self.model_id,
            "prompt": dataclasses.asdict(self.spec),
            "max_model_length": self.max_model_length,
            "decoding": self.decoding,
            "engine": self.engine,
            "dtype": self.dtype,
            "frame": self.frame,
        }
        if self.label_prior:
            identity["label_prior"] = list(self.label_prior)
        if self.prior:
            weights = self.prior.weights
            identity["prior"] = [*weights.known, *weights.new]
        return identity


@dataclass
class _Asked:
    """What a run of labels asked. Runs with keys of their own give equal questions different fingerprints."""

    is_keyed: bool
    orders: set[tuple[str, ...]] = dataclasses.field(default_factory=set)
    fingerprints: set[tuple[str, ...]] = dataclasses.field(default_factory=set)

    def add(self, row: dict[str, Any]) -> None:
        pair = row["user_id"], row["title_id"]
        self.orders.add((*pair, *(each["artwork_id"] for each in row["candidates"])))
        self.fingerprints.add((*pair, row["fingerprint"]))

    def same(self, other: "_Asked") -> bool:
        has_key = self.is_keyed or other.is_keyed
        return self.orders == other.orders and (has_key or self.fingerprints == other.fingerprints)


def read_label_prior(uris: Sequence[str], model_id: str, spec: PromptSpec, auto_layout: bool) -> tuple[float, ...]:
    """Returns the prior of the option numbers, estimated from all predictions of some finished runs.

    Args:
        model_id: the model whose answers the prior is to be divided out of, asked with the prompts of `spec`.
        auto_layout: whether the layout of these prompts is still open.

    Raises:
        InputError: if one has not finished, is not a run of `--decoding labels` by this model with this prompt, has a
            prior divided out already, or asked what another one asked.
    """
    distributions: list[np.ndarray] = []
    asked: list[tuple[_Asked, str]] = []
    for uri in uris:
        _check_prior_run(uri, model_id, dataclasses.asdict(spec), {"layout"} if auto_layout else set())
        questions = _Asked(is_keyed(uri))
        for file in finished_parts(uri):
            columns = ["user_id", "title_id", "fingerprint", "candidates"]
            for row in read_table(file, "predictions", columns).to_pylist():
                if row["candidates"]:
                    questions.add(row)
                    distributions.append(np.array([each["probability"] for each in row["candidates"]]))
        if not questions.orders:
            raise InputError(f"--label-prior {uri} has no predictions; score some pairs with --decoding labels first")
        if earlier := next((other for known, other in asked if questions.same(known)), None):
            raise InputError(f"--label-prior {uri} has the same pairs in the same order of candidates as {earlier}; "
                             "score them with another --permutation")  # fmt: skip
        asked.append((questions, uri))
    return tuple(label_prior.prior(distributions).tolist())


def _check_prior_run(uri: str, model_id: str, prompt: dict[str, Any], open_fields: set[str]) -> None:
    manifest, config = storage.read_manifest(uri), storage.join(uri, CONFIG)
    decoder = DECODERS.get(manifest.get("decoding", "")) if manifest else None
    if decoder is None or decoder.output != "number" or not storage.exists(config):
        raise InputError(f"--label-prior {uri} is not a finished run of jobs/score.py --decoding labels")
    run = storage.read_json(config)["run"]
    if run.get("label_prior"):
        raise InputError(f"--label-prior {uri} has a prior divided out already; score without --label-prior")
    if run["model"] != model_id:
        raise InputError(f"--label-prior {uri} is of the model {run['model']}, not of {model_id}; score with this one")
    shown = run["prompt"] | {"layout": storage.read_json(storage.join(uri, "summary.json"))["layout"]}
    if differing := sorted(
        name for name, value in prompt.items() if name not in open_fields and shown.get(name) != value
    ):
        raise InputError(f"--label-prior {uri} has another prompt, which differs in: {', '.join(differing)}")


def prompt_spec(model: Model, name: str, flags: ScorePrompt, decoding: str) -> PromptSpec:
    """Returns the prompt that the model was trained for, or for a model without a spec the one that the flags give.

    Raises:
        InputError: if flags contradict the model's prompt, or the decoding needs another output.
    """
    needed = DECODERS[decoding].output
    spec = resolve_prompt_spec(model.spec, flags, default_output=needed or "text", must_match=name)
    if flags.layout == "auto" and spec.assets == "image":
        raise InputError("--layout auto: with images the title always comes first; leave it out")
    if flags.layout == "auto" and model.spec is not None:
        raise InputError(f"--layout auto: {name} was trained for {spec.layout} only; leave it out")
    if needed and spec.output != needed:
        raise InputError(f"--decoding {decoding} needs a model that answers with a {needed}; use --decoding rank")
    return spec
