"""The simulated world in formulas: themes, tastes, the logging policy, engagement, and the oracle.

Array suffixes: n pairs of user and title, u users, x titles, m candidates (padded to the maximum), t themes. See
docs/simulated-world.md.
"""

import random
from dataclasses import dataclass

import numpy as np

from artsel_ray.config import AssetKind
from artsel_ray.simulate.captions import write_caption
from artsel_ray.simulate.themes import THEMES

EDITORIAL_SPREAD = 0.7
PERSONALIZATION = 0.3


@dataclass(frozen=True)
class World:
    """X titles with their artworks, padded to M candidates."""

    themes_xt: np.ndarray
    """Weights of each title's themes, derived from its genres; rows sum to 1."""
    mix_xmt: np.ndarray
    """Weights of each artwork's themes; rows sum to 1, and are 0 where a title has fewer than M candidates."""
    appeal_xm: np.ndarray
    """Appeal of each artwork to every user, added to the log-odds of engagement."""
    editorial_xm: np.ndarray
    """The logging policy's score for each artwork, the same for every user."""
    counts_x: np.ndarray
    """Number of candidates of each title."""
    captions: list[list[str]]
    """Captions of each title's candidates."""

    @property
    def mask_xm(self) -> np.ndarray:
        """True where a title has a candidate."""
        return np.arange(self.mix_xmt.shape[1]) < self.counts_x[:, None]


@dataclass(frozen=True)
class CaptionStyle:
    """How captions are written; see `write_caption`."""

    tokens: int
    shared_words: float
    kind: AssetKind = "artwork"


@dataclass(frozen=True)
class Behavior:
    """Parameters of the logging policy and of engagement."""

    taste_strength: float
    """Weight of a match in the log-odds of engagement."""
    exploration: float
    """Share of impressions for which the logging policy draws uniformly."""
    bias: float = 0.0
    """Log-odds of engagement with an artwork that neither matches nor appeals."""


def genre_themes(genres: list[list[str]], themes: int) -> np.ndarray:
    """Returns the weights of the themes for lists of genres, [X, T]; rows sum to 1, uniform without known genres."""
    weights = np.full((len(genres), themes), 0.05)
    for row, names in enumerate(genres):
        for column, theme in enumerate(THEMES[:themes]):
            weights[row, column] += sum(theme.genres.get(name, 0.0) for name in names)
    return weights / weights.sum(axis=1, keepdims=True)


def make_world(
    themes_xt: np.ndarray,
    candidates: tuple[int, int],
    noise: float,
    style: CaptionStyle,
    seed: int,
) -> World:
    """Draws every title's artworks and writes their captions.

    The number of candidates is `minimum + (maximum - minimum) * Beta(1.2, 2.2)`. Each artwork has one strong theme,
    drawn half of the time from the title's themes, otherwise uniformly.

    Args:
        themes_xt: [X, T] weights of each title's themes.
        candidates: minimum and maximum number of artworks of a title.
        noise: standard deviation of an artwork's appeal to every user.
        style: how captions are written.
        seed: source of all draws.
    """
    minimum, maximum = candidates
    rng = np.random.default_rng([seed, 1])
    count, themes = themes_xt.shape
    counts_x = minimum + np.rint((maximum - minimum) * rng.beta(1.2, 2.2, count)).astype(np.int64)
    strong_x = 0.5 * themes_xt + 0.5 / themes
    strong = (
        (rng.random((count, maximum, 1)) > np.cumsum(strong_x, axis=1)[:, None, :]).sum(axis=2).clip(max=themes - 1)
    )
    mix_xmt = 0.7 * np.eye(themes)[strong] + 0.3 * rng.dirichlet(np.full(themes, 0.5), (count, maximum))
    mask = np.arange(maximum) < counts_x[:, None]
    captions = [_captions(mix_xmt[x, : counts_x[x]], style, random.Random(f"{seed}:{x}")) for x in range(count)]
    return World(
        themes_xt=themes_xt,
        mix_xmt=np.where(mask[:, :, None], mix_xmt, 0.0),
        appeal_xm=rng.normal(0.0, noise, (count, maximum)),
        editorial_xm=rng.normal(0.0, EDITORIAL_SPREAD, (count, maximum)),
        counts_x=counts_x,
        captions=captions,
    )


def _captions(mix_mt: np.ndarray, style: CaptionStyle, rng: random.Random) -> list[str]:
    """Returns a title's captions, all different."""
    captions: dict[str, None] = {}
    for mix in mix_mt:
        tokens, caption = style.tokens, None
        while caption is None or caption in captions:
            caption = write_caption(mix, tokens, style.shared_words, rng, style.kind)
            tokens += 1  # there are few very short captions: without this the loop might not end
        captions[caption] = None
    return list(captions)


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
        middle = Behavior(behavior.taste_strength, behavior.exploration, (low + high) / 2)
        mean = float((policy * engagement(world, titles, matches, middle)).sum(axis=1).mean())
        low, high = (middle.bias, high) if mean < rate else (low, middle.bias)
    return Behavior(behavior.taste_strength, behavior.exploration, (low + high) / 2)


@dataclass(frozen=True)
class Impressions:
    """N impressions: an artwork shown to a user for a title, with the probabilities behind them."""

    positions_n: np.ndarray
    """Position of the shown artwork among the title's candidates."""
    engaged_n: np.ndarray
    """True where the user engaged."""
    policy_nm: np.ndarray
    """Probability that the logging policy shows each candidate."""
    engagement_nm: np.ndarray
    """Probability that the user engages with each candidate, if shown."""

    @property
    def propensities_n(self) -> np.ndarray:
        """Probability of the artwork shown."""
        return self.policy_nm[np.arange(len(self.positions_n)), self.positions_n]


def show(
    world: World, titles: np.ndarray, taste_nt: np.ndarray, behavior: Behavior, rng: np.random.Generator
) -> Impressions:
    """Draws the artwork shown for each pair from the logging policy, and whether the user engages."""
    matches = match(world, titles, taste_nt)
    policy = propensities(world, titles, matches, behavior)
    engaged_probability = engagement(world, titles, matches, behavior)
    rows = np.arange(len(titles))
    shown = (rng.random((len(rows), 1)) >= np.cumsum(policy, axis=1)).sum(axis=1)
    shown = np.minimum(shown, world.counts_x[titles] - 1)
    engaged = rng.random(len(rows)) < engaged_probability[rows, shown]
    return Impressions(shown, engaged, policy, engaged_probability)


@dataclass(frozen=True)
class Best:
    """Sums over engaged impressions of what the best possible predictors reach; parts merge by addition."""

    examples: int = 0
    accuracy: float = 0.0
    ips: float = 0.0
    ips_logged: float = 0.0
    random_accuracy: float = 0.0

    def __add__(self, other: "Best") -> "Best":
        """Returns the sums over both parts."""
        return Best(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def means(self) -> dict[str, float]:
        """Returns the means over the examples, by the names of metrics.json."""
        total = max(self.examples, 1)
        return {name: getattr(self, name) / total for name in ("accuracy", "ips", "ips_logged", "random_accuracy")}


def best_possible(policy_nm: np.ndarray, engaged_nm: np.ndarray, counts_n: np.ndarray) -> Best:
    """Returns what the best possible predictors reach in expectation on these engaged impressions.

    Given an engagement, artwork a was shown with probability q(a) = policy(a) p(a) / sum(policy p). No predictor has a
    higher expected accuracy than max q, nor a higher expected IPS with a uniform policy than m max q. With logged
    propensities, argmax p has the highest expected IPS, q(a) / policy(a).

    Args:
        policy_nm: the logging policy's probabilities.
        engaged_nm: probability of engagement with each candidate, if shown.
        counts_n: number of candidates.
    """
    joint = policy_nm * engaged_nm
    posterior = joint / joint.sum(axis=1, keepdims=True)
    top = posterior.max(axis=1)
    rows, best = np.arange(len(counts_n)), engaged_nm.argmax(axis=1)
    return Best(
        examples=len(counts_n),
        accuracy=float(top.sum()),
        ips=float((top * counts_n).sum()),
        ips_logged=float((posterior[rows, best] / policy_nm[rows, best]).sum()),
        random_accuracy=float((1 / counts_n).sum()),
    )
