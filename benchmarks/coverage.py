"""How often the 95 % intervals of IPS and SNIPS cover a policy's true value, on logs of a night that explored.

`python benchmarks/coverage.py` makes worlds of users with tastes of their own. In each a model that knows the tastes
badly serves artworks with `--explore`, what it showed is logged with its propensity, and from the engaged impressions
another policy's value is estimated, as `jobs/evaluate.py` does. The truth is known: the engagement that the other
policy would get, relative to what the log's own policy gets (IPS), or to one impression of every candidate (SNIPS).
`benchmarks/results/coverage.md` keeps what it gave.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import tyro

from artsel_ray.decoding.explore import draw, propensities
from artsel_ray.evaluation.metrics import Examples, evaluate_policies

METRICS = ("ips_logged", "snips_logged")
_PAIRS_PER_USER, _POPULATION = 4, 4_000


@dataclass(frozen=True)
class World:
    """N user-title pairs with M candidates each."""

    user_n: np.ndarray
    engagement_nm: np.ndarray
    """The chance that the user engages, if this artwork is shown."""
    propensity_nm: np.ndarray
    other_n: np.ndarray
    """What the other policy chooses."""


def make(rng: np.random.Generator, users: int, candidates: int, how: Literal["epsilon", "softmax"]) -> World:
    """Draws users with tastes, a model that guesses them, and another policy that guesses otherwise."""
    pairs = users * _PAIRS_PER_USER
    taste_nm = rng.normal(size=(pairs, candidates))
    eager_n = np.repeat(rng.normal(size=users), _PAIRS_PER_USER)
    guess_nm = 0.5 * taste_nm + rng.normal(size=taste_nm.shape)
    probability_nm = np.exp(guess_nm) / np.exp(guess_nm).sum(1, keepdims=True)
    return World(
        user_n=np.repeat(np.arange(users), _PAIRS_PER_USER),
        engagement_nm=1 / (1 + np.exp(1.0 - taste_nm - 0.5 * eager_n[:, None])),
        propensity_nm=np.stack([propensities(each, how, 0.3, 1.5) for each in probability_nm]),
        other_n=np.argmax(taste_nm + rng.normal(size=taste_nm.shape), axis=1),
    )


def truth(world: World) -> dict[str, float]:
    """Returns the other policy's value on both scales."""
    rows = np.arange(len(world.other_n))
    value = float(world.engagement_nm[rows, world.other_n].mean())
    shown = float((world.propensity_nm * world.engagement_nm).sum(1).mean())
    return {"ips_logged": value / shown, "snips_logged": value / float(world.engagement_nm.sum(1).mean())}


def estimate(world: World, rng: np.random.Generator, seed: int) -> dict[str, dict[str, float]]:
    """Serves, logs the engaged impressions and estimates the other policy's value out of them."""
    rows = np.arange(len(world.other_n))
    shown_n = np.array([draw(each, seed, str(row), "t") for row, each in enumerate(world.propensity_nm)])
    engaged = rng.random(len(rows)) < world.engagement_nm[rows, shown_n]
    _, user_n = np.unique(world.user_n[engaged], return_inverse=True)
    candidates = world.engagement_nm.shape[1]
    examples = Examples(
        user_n=user_n,
        position_n=shown_n[engaged],
        candidates_n=np.full(int(engaged.sum()), candidates),
        propensity_n=world.propensity_nm[rows, shown_n][engaged],
    )
    hit_n = (world.other_n == shown_n)[engaged].astype(np.float64)
    return evaluate_policies(examples, {"model": hit_n}, resamples=500, seed=seed)["model"]


def coverage(worlds: int, users: int, how: Literal["epsilon", "softmax"]) -> dict[str, tuple[float, float]]:
    """Returns for each metric the share of the worlds whose interval covers the truth, and the mean relative error."""
    covered = dict.fromkeys(METRICS, 0)
    errors: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for number in range(worlds):
        rng = np.random.default_rng(number)
        candidates = int(rng.integers(3, 12))
        true = truth(make(rng, _POPULATION, candidates, how))
        found = estimate(make(rng, users, candidates, how), rng, number)
        for metric in METRICS:
            covered[metric] += found[metric]["low"] <= true[metric] <= found[metric]["high"]
            errors[metric].append(found[metric]["value"] / true[metric] - 1)
    return {metric: (covered[metric] / worlds, float(np.mean(errors[metric]))) for metric in METRICS}


def main(worlds: int = 400, users: int = 500) -> None:
    """Prints a Markdown table.

    Args:
        worlds: for each way to explore.
        users: whose impressions are logged in a world, four of each.
    """
    print("| exploration | metric | intervals that cover the truth | mean relative error |\n|---|---|---|---|")
    ways: tuple[Literal["epsilon", "softmax"], ...] = ("epsilon", "softmax")
    for how in ways:
        for metric, (share, error) in coverage(worlds, users, how).items():
            print(f"| {how} | {metric} | {share:.1%} | {error:+.2%} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
