"""A vectorized bootstrap that resamples users, numerators and denominators together.

Suffixes: n examples, u users, t titles, s sums, b resamples, r resamples in a chunk.

A user's examples depend on one another, so users are drawn, not examples. Every estimate is a ratio of sums:
each resample's numerator and denominator come from the same draw of users. (Resampling a numerator that was
already divided by the full sample's denominator gives wrong intervals.)
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from artsel_ray.evaluation.examples import FloatArray, IntArray
from artsel_ray.evaluation.off_policy import Terms, effective_sample_size

K = TypeVar("K", bound=Hashable)

# 4 M draws at a time: three arrays of 32 MB, whatever the number of users and resamples.
_CHUNK_DRAWS = 4_000_000
# Of a 95 % interval.
_Z = 1.959964


@dataclass(frozen=True)
class Measurement:
    """A number with its 95 % interval, for JSON: None where it is not finite."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate:
    """A ratio's value on the sample, and on each of B resamples of the users. NaN where it is undefined.

    Two estimates of one `bootstrap` are combined resample by resample, so the result is paired.
    """

    value: float
    resampled_b: FloatArray
    clusters: float = math.nan
    """Effective number of users, or of titles if these are fewer and drawn too: Kish's, of their denominators."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Returns the percentile interval over the resamples in which the ratio is defined; NaN if none is.

        Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
        """
        defined_b = self.resampled_b[~np.isnan(self.resampled_b)]
        if not len(defined_b):
            return float("nan"), float("nan")
        with np.errstate(invalid="ignore"):
            low, high = np.percentile(defined_b, [50 * (1 - level), 50 * (1 + level)])
        return float(low), float(high)

    def measurement(self, is_share: bool = False) -> Measurement:
        """Returns the value with its 95 % interval; that of a share of 0 or 1 is Wilson's.

        Where all or none is right, every resample is the same, and a percentile interval would be a point. Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
        """
        numbers = (self.value, *self.interval())
        if is_share and self.value in (0.0, 1.0) and self.clusters > 1:
            reach = _Z**2 / (self.clusters + _Z**2)
            numbers = (0.0, 0.0, reach) if self.value == 0 else (1.0, 1 - reach, 1.0)
        return Measurement(*(number if math.isfinite(number) else None for number in numbers))

    def percent_over(self, reference: "Estimate") -> "Estimate":
        """Returns `100 · (self / reference - 1)`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(100 * (np.float64(self.value) / np.float64(reference.value) - 1))
            return Estimate(value, 100 * (self.resampled_b / reference.resampled_b - 1))

    def plus(self, other: "Estimate") -> "Estimate":
        """Returns the sum."""
        return Estimate(self.value + other.value, self.resampled_b + other.resampled_b)

    def minus(self, other: "Estimate") -> "Estimate":
        """Returns the difference."""
        return Estimate(self.value - other.value, self.resampled_b - other.resampled_b)


def bootstrap(
    terms: Iterable[tuple[K, Terms]], user_n: IntArray, resamples: int, seed: int, title_n: IntArray | None = None
) -> dict[K, Estimate]:
    """Returns each named ratio with its values on `resamples` draws of U users with replacement, the same for all.

    The result depends on the users' numbers and the seed, not on the order of the examples. With titles, it draws users
    and titles, each with replacement, and an example counts as often as its user times as often as its title: the
    interval is for other users and other titles. It is wide rather than narrow. Source: Owen, "The pigeonhole
    bootstrap", 2007.

    Args:
        terms: consumed one at a time, so that a generator keeps only one ratio's N terms in memory.
        user_n: each example's user, numbered from 0 without gaps.
        title_n: each example's title, likewise.
    """
    # Users' sums are all that resampling users needs; with titles, each example is a cell of its own.
    cells = int(user_n.max()) + 1 if title_n is None else len(user_n)
    cell_n = user_n if title_n is None else np.arange(cells)
    sums = {name: [np.bincount(cell_n, term_n, cells) for term_n in pair] for name, pair in terms}
    sums_cs = np.stack([column for pair in sums.values() for column in pair], axis=1).astype(np.float64)
    value_s = _ratios(sums_cs.sum(axis=0)[None])[0]
    drawn_bs = (
        resampled_sums(sums_cs, resamples, seed)
        if title_n is None
        else twice_resampled_sums(sums_cs, user_n, title_n, resamples, seed)
    )
    resampled_bs = _ratios(drawn_bs)
    drawn = [user_n] if title_n is None else [user_n, title_n]
    return {
        name: Estimate(float(value_s[s]), resampled_bs[:, s], _clusters(sums_cs[:, 2 * s + 1], cell_n, drawn))
        for s, name in enumerate(sums)
    }


def _clusters(denominator_c: FloatArray, cell_n: IntArray, drawn: list[IntArray]) -> float:
    """Returns the smallest effective number of what is drawn, of the denominators of the cells that examples are in."""
    if len(drawn) == 1:
        return effective_sample_size(denominator_c)
    return min(effective_sample_size(np.bincount(each_n, denominator_c[cell_n]).astype(np.float64)) for each_n in drawn)


def resampled_sums(sums_us: FloatArray, resamples: int, seed: int, chunk_draws: int = _CHUNK_DRAWS) -> FloatArray:
    """Returns `[B, S]`: the sums over users of B multinomial resamples, `counts_BU @ sums_us`, chunk by chunk."""
    users, generator, chunks = len(sums_us), np.random.default_rng(seed), []
    for first in range(0, resamples, step := max(1, chunk_draws // users)):
        rows = min(step, resamples - first)
        chunks.append(_draw_counts(generator, rows, users).astype(np.float64) @ sums_us)
    return np.concatenate(chunks)


def twice_resampled_sums(
    terms_ns: FloatArray, user_n: IntArray, title_n: IntArray, resamples: int, seed: int,
    chunk_draws: int = _CHUNK_DRAWS,
) -> FloatArray:  # fmt: skip
    """Returns `[B, S]`: the sums over examples, each weighted by its user's count times its title's, of B resamples."""
    users, titles, generator, chunks = user_n.max() + 1, title_n.max() + 1, np.random.default_rng(seed), []
    for first in range(0, resamples, step := max(1, chunk_draws // len(user_n))):
        rows = min(step, resamples - first)
        count_ru, count_rt = _draw_counts(generator, rows, users), _draw_counts(generator, rows, titles)
        weight_rn = count_ru[:, user_n] * count_rt[:, title_n]
        chunks.append(weight_rn.astype(np.float64) @ terms_ns)
    return np.concatenate(chunks)


def _draw_counts(generator: np.random.Generator, rows: int, size: int) -> IntArray:
    """Returns how often each of `size` is in a draw of as many with replacement, for each row."""
    draw = generator.integers(size, size=(rows, size))
    draw += np.arange(rows)[:, None] * size
    return np.bincount(draw.ravel(), minlength=rows * size).reshape(rows, size)


def _ratios(sums_bs: FloatArray) -> FloatArray:
    """Divides each even column by the odd one after it; NaN where the divisor is zero."""
    numerators, denominators = sums_bs[:, ::2], sums_bs[:, 1::2]
    return np.divide(numerators, denominators, out=np.full(numerators.shape, np.nan), where=denominators != 0)
