"""What a run's answers depend on apart from the data: model, prompt, decoding, limits and label prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.decoding import label_prior
from artsel_ray.decoding.base import Decoder
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.spec import resolve_prompt_spec
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.settings import ScorePrompt


@dataclass(frozen=True)
class AnswerSpec:
    """What rendering and decoding depend on."""

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

    @property
    def decoder(self) -> Decoder:
        """What `decoding` names."""
        return DECODERS[self.decoding]


def read_label_prior(uris: Sequence[str]) -> tuple[float, ...]:
    """Returns the prior of the option numbers, estimated from all predictions of some finished runs.

    Raises:
        InputError: if one has not finished, or is not a run of `--decoding labels`.
    """
    distributions = []
    for uri in uris:
        manifest = storage.read_manifest(uri)
        decoder = DECODERS.get(manifest["decoding"]) if manifest else None
        if manifest is None or decoder is None or decoder.output != "number":
            raise InputError(f"--label-prior {uri} is not a finished run of jobs/score.py --decoding labels")
        for part in manifest["parts"]:
            rows = read_table(storage.join(uri, part), "predictions", ["candidates.probability"])
            for candidates in filter(None, rows["candidates"].to_pylist()):
                distributions.append(np.array([each["probability"] for each in candidates]))
    if not distributions:
        raise InputError(f"--label-prior {uris[0]} has no predictions; score some pairs with --decoding labels first")
    return tuple(label_prior.prior(distributions).tolist())


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
