"""The simulated world in formulas: themes, tastes, the logging policy, engagement, and the oracle.

Letters: N pairs, U users, X titles, A artworks, M most candidates of a title, T themes. See
docs/simulated-world.md.
"""

import random
from dataclasses import dataclass

import numpy as np

from artsel_ray.config import AssetKind
from artsel_ray.simulate.captions import write_caption
from artsel_ray.simulate.themes import THEMES

EDITORIAL_SPREAD = 0.7
PERSONALISATION = 0.3


@dataclass(frozen=True)
class World:
    """Titles with their artworks, candidates padded to M."""

    themes_xt: np.ndarray
    """Each title's themes, which follow from its genres; rows sum to 1."""
    mix_xmt: np.ndarray
    """Each artwork's themes; rows sum to 1, and are 0 where a title has fewer than M."""
    appeal_xm: np.ndarray
    """What makes an artwork engaging to everybody."""
    editorial_xm: np.ndarray
    """What the logging policy thinks of an artwork, whoever looks at it."""
    counts_x: np.ndarray
    """Candidates of each title."""
    captions: list[list[str]]

    @property
    def mask_xm(self) -> np.ndarray:
        """True where a title has a candidate."""
        return np.arange(self.mix_xmt.shape[1]) < self.counts_x[:, None]


@dataclass(frozen=True)
class Behavior:
    """Parameters of the logging policy and of engagement."""

    taste_strength: float
    exploration: float
    bias: float = 0.0


def genre_themes(genres: list[list[str]], themes: int) -> np.ndarray:
    """Returns the themes that go with lists of genres, [X, T]; rows sum to 1, uniform without known genres."""
    weights = np.full((len(genres), themes), 0.05)
    for row, names in enumerate(genres):
        for column, theme in enumerate(THEMES[:themes]):
            weights[row, column] += sum(theme.genres.get(name, 0.0) for name in names)
    return weights / weights.sum(axis=1, keepdims=True)


def make_world(
    themes_xt: np.ndarray,
    candidates: tuple[int, int],
    noise: float,
    caption_tokens: int,
    shared_words: float,
    seed: int,
    kind: AssetKind = "artwork",
) -> World:
    """Draws every title's artworks and writes their captions.

    The number of candidates is `fewest + (most - fewest) * Beta(1.2, 2.2)`; an artwork has one strong theme,
    drawn from the title's, half of the time from all.
    """
    fewest, most = candidates
    rng = np.random.default_rng([seed, 1])
    count, themes = themes_xt.shape
    counts_x = fewest + np.rint((most - fewest) * rng.beta(1.2, 2.2, count)).astype(np.int64)
    strong_x = 0.5 * themes_xt + 0.5 / themes
    strong = (rng.random((count, most, 1)) > np.cumsum(strong_x, axis=1)[:, None, :]).sum(axis=2).clip(max=themes - 1)
    mix_xmt = 0.7 * np.eye(themes)[strong] + 0.3 * rng.dirichlet(np.full(themes, 0.5), (count, most))
    mask = np.arange(most) < counts_x[:, None]
    captions = [
        _captions(mix_xmt[x, : counts_x[x]], caption_tokens, shared_words, random.Random(f"{seed}:{x}"), kind)
        for x in range(count)
    ]
    return World(
        themes_xt=themes_xt,
        mix_xmt=np.where(mask[:, :, None], mix_xmt, 0.0),
        appeal_xm=rng.normal(0.0, noise, (count, most)),
        editorial_xm=rng.normal(0.0, EDITORIAL_SPREAD, (count, most)),
        counts_x=counts_x,
        captions=captions,
    )


def _captions(mix_mt: np.ndarray, tokens: int, shared_words: float, rng: random.Random, kind: AssetKind) -> list[str]:
    """Writes a title's captions, no two the same."""
    captions: dict[str, None] = {}
    for mix in mix_mt:
        length, caption = tokens, write_caption(mix, tokens, shared_words, rng, kind)
        while caption in captions:
            length += 1  # so that very short captions, of which there are few, come to an end
            caption = write_caption(mix, length, shared_words, rng, kind)
        captions[caption] = None
    return list(captions)


def match(world: World, titles: np.ndarray, taste_nt: np.ndarray) -> np.ndarray:
    """Returns how well each candidate fits a taste, T * taste . mix less the title's mean: [N, M], padded with 0."""
    mask = world.mask_xm[titles]
    raw = np.einsum("nt,nmt->nm", taste_nt, world.mix_xmt[titles], optimize=True) * taste_nt.shape[1]
    mean = raw.sum(axis=1, keepdims=True) / world.counts_x[titles][:, None]
    return np.where(mask, raw - mean, 0.0)


def propensities(world: World, titles: np.ndarray, match_nm: np.ndarray, behavior: Behavior) -> np.ndarray:
    """Returns the logging policy: (1 - e) softmax(editorial + 0.3 match) + e / m, e the exploration; [N, M]."""
    mask = world.mask_xm[titles]
    scores = np.where(mask, world.editorial_xm[titles] + PERSONALISATION * match_nm, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    policy = weights / weights.sum(axis=1, keepdims=True)
    uniform = mask / world.counts_x[titles][:, None]
    return (1 - behavior.exploration) * policy + behavior.exploration * uniform


def engagement(world: World, titles: np.ndarray, match_nm: np.ndarray, behavior: Behavior) -> np.ndarray:
    """Returns P(engaged | shown) = sigmoid(bias + strength * match + appeal), [N, M], 0 where there is no candidate."""
    utility = behavior.bias + behavior.taste_strength * match_nm + world.appeal_xm[titles]
    return np.where(world.mask_xm[titles], 1 / (1 + np.exp(-utility)), 0.0)


def calibrate(world: World, titles: np.ndarray, taste_nt: np.ndarray, behavior: Behavior, rate: float) -> Behavior:
    """Returns the behaviour with the bias at which these pairs engage with what is shown at the given rate."""
    matches = match(world, titles, taste_nt)
    policy = propensities(world, titles, matches, behavior)
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = Behavior(behavior.taste_strength, behavior.exploration, (low + high) / 2)
        mean = float((policy * engagement(world, titles, matches, middle)).sum(axis=1).mean())
        low, high = (middle.bias, high) if mean < rate else (low, middle.bias)
    return Behavior(behavior.taste_strength, behavior.exploration, (low + high) / 2)


@dataclass(frozen=True)
class Best:
    """Sums over engaged impressions of what the best possible predictors reach; mergeable by addition."""

    examples: int = 0
    accuracy: float = 0.0
    ips: float = 0.0
    ips_logged: float = 0.0
    random_accuracy: float = 0.0

    def __add__(self, other: "Best") -> "Best":
        """Adds another part of the same world."""
        return Best(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def means(self) -> dict[str, float]:
        """Returns the means; the keys are `metrics.json`'s."""
        total = max(self.examples, 1)
        return {name: getattr(self, name) / total for name in ("accuracy", "ips", "ips_logged", "random_accuracy")}


def best_possible(policy_nm: np.ndarray, engaged_nm: np.ndarray, counts_n: np.ndarray) -> Best:
    """Returns what can be reached at best on these engaged impressions.

    Given an engagement, the artwork was a with probability q(a) = policy(a) p(a) / sum(policy p). No predictor
    has a higher expected accuracy than max q, nor a higher IPS with a uniform policy than m max q; for IPS with
    the logged propensities it is argmax p, of which q(a) / policy(a) is expected.
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
