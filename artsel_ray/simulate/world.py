"""The simulated world in formulas: matches, the logging policy, engagement, and the oracle.

See docs/simulated-world.md. Array suffixes: n pairs of user and title, x titles, m candidates (padded), t themes.
"""

import operator
import random
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace

import numpy as np

from artsel_ray.simulate.artworks import CaptionStyle, write_caption

EDITORIAL_SPREAD = 0.7
PERSONALIZATION = 0.3


@dataclass(frozen=True)
class World:
    """X titles with their artworks, padded to M candidates."""

    mix_xmt: np.ndarray
    """Weights of each artwork's themes; rows sum to 1, and are 0 where a title has fewer than M candidates."""
    appeal_xm: np.ndarray
    """Added to every user's log-odds of engagement."""
    editorial_xm: np.ndarray
    """The logging policy's score, the same for every user."""
    counts_x: np.ndarray
    captions: list[list[str]]

    @property
    def mask_xm(self) -> np.ndarray:
        """True where a title has a candidate."""
        return np.arange(self.mix_xmt.shape[1]) < self.counts_x[:, None]

    @property
    def first_x(self) -> np.ndarray:
        """Index of each title's first artwork among the artworks of all titles."""
        return np.cumsum(self.counts_x) - self.counts_x


@dataclass(frozen=True)
class Behavior:
    """Parameters of the logging policy and of engagement."""

    taste_strength: float
    """Weight of a match in the log-odds of engagement."""
    exploration: float
    """Share of impressions for which the logging policy draws uniformly."""
    bias: float = 0.0
    """Log-odds of engagement with an artwork that neither matches nor appeals."""


def make_world(
    themes_xt: np.ndarray, candidates: tuple[int, int], noise: float, styles: Sequence[CaptionStyle], seed: int
) -> World:
    """Draws every title's artworks and writes their captions, in the style of their title, one of X.

    The number of candidates is `minimum + (maximum - minimum) * Beta(1.2, 2.2)`. `noise` is the standard deviation of
    an artwork's appeal to every user.
    """
    minimum, maximum = candidates
    rng = np.random.default_rng([seed, 1])
    count, themes = themes_xt.shape
    counts_x = minimum + np.rint((maximum - minimum) * rng.beta(1.2, 2.2, count)).astype(np.int64)
    upto_xt = np.cumsum(0.5 * themes_xt + 0.5 / themes, axis=1)
    strong_xm = (rng.random((count, maximum, 1)) > upto_xt[:, None, :]).sum(axis=2).clip(max=themes - 1)
    mix_xmt = 0.7 * np.eye(themes)[strong_xm] + 0.3 * rng.dirichlet(np.full(themes, 0.5), (count, maximum))
    captions = [_captions(mix_xmt[x, : counts_x[x]], styles[x], random.Random(f"{seed}:{x}")) for x in range(count)]
    return World(
        mix_xmt=np.where((np.arange(maximum) < counts_x[:, None])[:, :, None], mix_xmt, 0.0),
        appeal_xm=rng.normal(0.0, noise, (count, maximum)),
        editorial_xm=rng.normal(0.0, EDITORIAL_SPREAD, (count, maximum)),
        counts_x=counts_x,
        captions=captions,
    )


def _captions(mix_mt: np.ndarray, style: CaptionStyle, rng: random.Random) -> list[str]:
    captions: list[str] = []
    for mix in mix_mt:
        attempt = style
        while (caption := write_caption(mix, attempt, rng)) in captions:
            # There are few very short captions: at the same length the loop might not end.
            attempt = replace(attempt, tokens=attempt.tokens + 1)
        captions.append(caption)
    return captions


def match(world: World, titles: np.ndarray, taste_nt: np.ndarray) -> np.ndarray:
    """Returns how well each candidate fits a taste: T * taste . mix minus the title's mean, [N, M], padded with 0."""
    mask = world.mask_xm[titles]
    raw = np.einsum("nt,nmt->nm", taste_nt, world.mix_xmt[titles], optimize=True) * taste_nt.shape[1]
    mean = raw.sum(axis=1, keepdims=True) / world.counts_x[titles][:, None]
    return np.where(mask, raw - mean, 0.0)


def propensities(world: World, titles: np.ndarray, match_nm: np.ndarray, behavior: Behavior) -> np.ndarray:
    """Returns the logging policy: (1 - e) softmax(editorial + 0.3 match) + e / m with exploration e, [N, M]."""
    mask = world.mask_xm[titles]
    scores = np.where(mask, world.editorial_xm[titles] + PERSONALIZATION * match_nm, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    policy = weights / weights.sum(axis=1, keepdims=True)
    uniform = mask / world.counts_x[titles][:, None]
    return (1 - behavior.exploration) * policy + behavior.exploration * uniform


def engagement(world: World, titles: np.ndarray, match_nm: np.ndarray, behavior: Behavior) -> np.ndarray:
    """Returns P(engaged | shown) = sigmoid(bias + strength * match + appeal), [N, M], padded with 0."""
    utility = behavior.bias + behavior.taste_strength * match_nm + world.appeal_xm[titles]
    return np.where(world.mask_xm[titles], 1 / (1 + np.exp(-utility)), 0.0)


def calibrate(world: World, titles: np.ndarray, taste_nt: np.ndarray, behavior: Behavior, rate: float) -> Behavior:
    """Returns the behavior with the bias at which the expected rate of engagement of these pairs is `rate`."""
    matches = match(world, titles, taste_nt)
    policy = propensities(world, titles, matches, behavior)
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = replace(behavior, bias=(low + high) / 2)
        mean = float((policy * engagement(world, titles, matches, middle)).sum(axis=1).mean())
        low, high = (middle.bias, high) if mean < rate else (low, middle.bias)
    return replace(behavior, bias=(low + high) / 2)


@dataclass(frozen=True)
class Impressions:
    """N impressions: the position of the artwork shown, whether the user engaged, and the probabilities of both."""

    positions_n: np.ndarray
    engaged_n: np.ndarray
    policy_nm: np.ndarray
    engagement_nm: np.ndarray
    """If the candidate is shown."""
    propensities_n: np.ndarray
    """The policy's probability of the artwork shown."""


def show(
    world: World, titles: np.ndarray, taste_nt: np.ndarray, behavior: Behavior, rng: np.random.Generator
) -> Impressions:
    """Draws the artwork shown for each pair from the logging policy, and whether the user engages."""
    matches = match(world, titles, taste_nt)
    policy = propensities(world, titles, matches, behavior)
    engaged_probability = engagement(world, titles, matches, behavior)
    shown = (rng.random((len(titles), 1)) >= np.cumsum(policy, axis=1)).sum(axis=1)
    shown = np.minimum(shown, world.counts_x[titles] - 1)
    chosen = np.arange(len(titles)), shown
    engaged = rng.random(len(titles)) < engaged_probability[chosen]
    return Impressions(shown, engaged, policy, engaged_probability, policy[chosen])


@dataclass(frozen=True)
class Best:
    """Sums over engaged impressions of what the best possible predictors reach; parts merge by addition."""

    examples: int = 0
    accuracy: float = 0.0
    ips: float = 0.0
    ips_logged: float = 0.0
    random_accuracy: float = 0.0

    def __add__(self, other: "Best") -> "Best":
        return Best(*map(operator.add, astuple(self), astuple(other)))

    def means(self) -> dict[str, float]:
        """Returns the means over the examples, by the names of metrics.json."""
        return {name: value / max(self.examples, 1) for name, value in asdict(self).items() if name != "examples"}


def best_possible(policy_nm: np.ndarray, engaged_nm: np.ndarray, counts_n: np.ndarray) -> Best:
    """Returns what the best possible predictors reach in expectation on these engaged impressions.

    Given an engagement, artwork a was shown with probability q(a) = policy(a) p(a) / sum(policy p). No predictor has a
    higher expected accuracy than max q, nor a higher expected IPS with a uniform policy than m max q. With logged
    propensities, argmax p has the highest expected IPS, q(a) / policy(a).
    """
    joint = policy_nm * engaged_nm
    posterior = joint / joint.sum(axis=1, keepdims=True)
    top = posterior.max(axis=1)
    chosen = np.arange(len(counts_n)), engaged_nm.argmax(axis=1)
    logged = posterior[chosen] / policy_nm[chosen]
    return Best(len(counts_n), top.sum(), (top * counts_n).sum(), logged.sum(), (1 / counts_n).sum())
