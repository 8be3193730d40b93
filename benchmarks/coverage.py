"""How often the 95 % intervals of the estimators cover a policy's true value, on logs of a run that explores.

`python benchmarks/coverage.py` simulates worlds of users with different tastes. In each, a model that knows the
tastes roughly serves artworks with `--explore`, and each is logged with its propensity. From this log another policy's
value is estimated, as `jobs/evaluate.py` does. The truth is known: the engagement that the other policy would get,
relative to what the log's own policy gets (IPS), or to one impression of every candidate (SNIPS).
`benchmarks/results/coverage.md` has the results.
"""

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import tyro

from artsel_ray.evaluation.bootstrap import Measurement
from artsel_ray.evaluation.examples import Examples, PolicyOnExamples
from artsel_ray.evaluation.off_policy import Log
from artsel_ray.evaluation.policies import EstimateSettings, evaluate_log, evaluate_policies
from artsel_ray.score.serving import draw, propensities

_METRICS = ("ips_logged", "snips_logged")
_LOG_METRICS = ("ips", "snips", "dr", "sndr")
_PAIRS_PER_USER, _POPULATION = 4, 4_000


@dataclass(frozen=True)
class World:
    """N user-title pairs with M candidates each."""

    user_n: np.ndarray
    engagement_nm: np.ndarray
    """Probability that the user engages, if this artwork is shown."""
    propensity_nm: np.ndarray
    """Probability with which the log's policy shows this artwork."""
    probability_nm: np.ndarray
    """The same before it explores."""
    other_n: np.ndarray
    """Choice of the other policy."""


def make(rng: np.random.Generator, users: int, candidates: int, how: Literal["epsilon", "softmax"]) -> World:
    """Draws users with tastes, a model that guesses them, and another policy that guesses differently."""
    pairs = users * _PAIRS_PER_USER
    taste_nm = rng.normal(size=(pairs, candidates))
    eager_n = np.repeat(rng.normal(size=users), _PAIRS_PER_USER)
    guess_nm = 0.5 * taste_nm + rng.normal(size=taste_nm.shape)
    probability_nm = np.exp(guess_nm) / np.exp(guess_nm).sum(1, keepdims=True)
    return World(
        user_n=np.repeat(np.arange(users), _PAIRS_PER_USER),
        engagement_nm=1 / (1 + np.exp(1.0 - taste_nm - 0.5 * eager_n[:, None])),
        probability_nm=probability_nm,
        propensity_nm=np.stack([propensities(each, how, 0.3, 1.5) for each in probability_nm]),
        other_n=np.argmax(taste_nm + rng.normal(size=taste_nm.shape), axis=1),
    )


def truth(world: World) -> dict[str, float]:
    """Returns the other policy's value on all scales."""
    rows = np.arange(len(world.other_n))
    value = float(world.engagement_nm[rows, world.other_n].mean())
    shown = float((world.propensity_nm * world.engagement_nm).sum(1).mean())
    on_log = {f"log {name}": value for name in _LOG_METRICS}
    return {"ips_logged": value / shown, "snips_logged": value / float(world.engagement_nm.sum(1).mean()), **on_log}


def estimate(world: World, rng: np.random.Generator, seed: int) -> dict[str, Measurement]:
    """Serves, logs the impressions, and estimates the other policy's value from the engaged ones and from all."""
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
    hit_n = (world.other_n == shown_n).astype(np.float64)
    settings = EstimateSettings(500, seed)
    found = evaluate_policies({"model": PolicyOnExamples(examples, hit_n[engaged])}, settings).policies["model"]
    reward_nm = np.minimum(1, engaged.mean() * candidates * world.probability_nm)
    log = Log(
        reward_n=engaged.astype(np.float64),
        logging_n=world.propensity_nm[rows, shown_n],
        target_n=hit_n,
        predicted_n=reward_nm[rows, shown_n],
        expected_n=reward_nm[rows, world.other_n],
    )
    on_log = evaluate_log({"model": log}, world.user_n, settings).policies["model"]
    return {name: found.metrics[name] for name in _METRICS} | {
        f"log {name}": on_log.metrics[name] for name in _LOG_METRICS
    }


def coverage(worlds: int, users: int, how: Literal["epsilon", "softmax"]) -> dict[str, tuple[float, float, float]]:
    """Returns for each metric the share of the worlds whose interval covers the truth, and its error.

    The errors are relative to the truth: their mean, and the mean width of the intervals.
    """
    covered: dict[str, list[bool]] = {}
    errors: dict[str, list[float]] = {}
    widths: dict[str, list[float]] = {}
    for number in range(worlds):
        rng = np.random.default_rng(number)
        candidates = int(rng.integers(3, 12))
        true = truth(make(rng, _POPULATION, candidates, how))
        for metric, found in estimate(make(rng, users, candidates, how), rng, number).items():
            value, low, high = (float("nan") if each is None else each for each in astuple(found))
            covered.setdefault(metric, []).append(low <= true[metric] <= high)
            errors.setdefault(metric, []).append(value / true[metric] - 1)
            widths.setdefault(metric, []).append((high - low) / true[metric])
    return {
        metric: (float(np.mean(covered[metric])), float(np.mean(errors[metric])), float(np.mean(widths[metric])))
        for metric in covered
    }


def main(worlds: int = 400, users: int = 500) -> None:
    """Prints a Markdown table.

    Args:
        worlds: for each way to explore.
        users: whose impressions are logged in a world, four of each.
    """
    print("| exploration | metric | intervals that cover the truth | mean relative error | mean relative width |")
    print("|---|---|---|---|---|")
    ways: tuple[Literal["epsilon", "softmax"], ...] = ("epsilon", "softmax")
    for how in ways:
        for metric, (share, error, width) in coverage(worlds, users, how).items():
            print(f"| {how} | {metric} | {share:.1%} | {error:+.2%} | {width:.0%} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
