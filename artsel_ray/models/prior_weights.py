"""`prior.json`: what a model that was trained with a prior, and its prior, count when both score."""

import dataclasses
from dataclasses import dataclass

from artsel_ray import storage
from artsel_ray.errors import InputError

PRIOR = "prior.json"


@dataclass(frozen=True)
class PriorWeights:
    """Weights of the two log-probabilities, the model's and the prior's."""

    known: tuple[float, float]
    """For titles of the train examples."""
    new: tuple[float, float]
    known_titles: frozenset[str]
    """Ids of these titles."""
    prior_ids: tuple[str, ...]
    """Ids of the models that the prior of validation came from."""

    def of(self, title_id: str) -> tuple[float, float]:
        """Returns the weights for a title."""
        return self.known if title_id in self.known_titles else self.new


def write_prior_weights(uri: str, weights: PriorWeights) -> None:
    """Writes a model folder's `prior.json`."""
    titles = {"known_titles": sorted(weights.known_titles)}
    storage.write_json(storage.join(uri, PRIOR), dataclasses.asdict(weights) | titles)


def read_prior_weights(uri: str) -> PriorWeights | None:
    """Reads a model folder's `prior.json`; returns None where there is none.

    Raises:
        InputError: if it is none of ours.
    """
    path = storage.join(uri, PRIOR)
    parent, _, last = uri.rstrip("/").rpartition("/")
    if last in ("merged", "adapter") and not storage.exists(path):  # a part of a training's output
        path = storage.join(parent, PRIOR)
    if not storage.exists(path):
        return None
    content = storage.read_json(path)
    try:
        known, new = ((float(content[name][0]), float(content[name][1])) for name in ("known", "new"))
        return PriorWeights(known, new, frozenset(content["known_titles"]), tuple(content["prior_ids"]))
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(f"{path} is not what a training with --prior writes; train again") from None
