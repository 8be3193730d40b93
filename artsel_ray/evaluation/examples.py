"""Logged choices as arrays, and what a policy does in them.

Suffixes: n examples, c candidates of all examples end to end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNKNOWN = -1
"""Stands for no artwork or no position in arrays of integers."""


@dataclass(frozen=True)
class Examples:
    """N logged choices, each of an artwork that a user engaged with."""

    user_n: IntArray
    """Users, numbered from 0 without gaps."""
    position_n: IntArray
    """0-based position of the engaged artwork among the title's candidates."""
    candidates_n: IntArray
    """Number of candidates of the title (m)."""
    propensity_n: FloatArray
    """Probability with which the logging policy showed the engaged artwork, in (0, 1]; NaN where it is not known."""
    text_c: IntArray | None = None
    """Number of every candidate's text: candidates of an example with the same number read the same (duplicates). No
    policy that reads can tell them apart, so that they count as one action, shown in equal shares. None: all differ."""

    @property
    def known_n(self) -> NDArray[np.bool_]:
        """Whether the propensity is known."""
        return ~np.isnan(self.propensity_n)

    @property
    def duplicates_n(self) -> IntArray:
        """Number of candidates that read as the engaged one does, itself included (k)."""
        if self.text_c is None:
            return np.ones(len(self.candidates_n), np.int64)
        return np.add.reduceat(self._reads_engaged_c(self.text_c).astype(np.int64), self.start_n)

    @property
    def uniform_n(self) -> FloatArray:
        """The uniform policy's probability of each engaged artwork, duplicates included: k/m."""
        return self.duplicates_n / self.candidates_n

    @property
    def logging_n(self) -> FloatArray:
        """The logging policy's probability of each engaged artwork, duplicates included: k times the propensity."""
        return self.duplicates_n * self.propensity_n

    @property
    def uniform_c(self) -> FloatArray:
        """The uniform policy's probability of every candidate, 1/m."""
        return np.repeat(1.0 / self.candidates_n, self.candidates_n)

    @property
    def start_n(self) -> IntArray:
        """Index of each example's first candidate among all candidates end to end."""
        return np.cumsum(self.candidates_n) - self.candidates_n

    def where(self, is_kept_n: NDArray[np.bool_]) -> "Examples":
        """Returns some of the examples; their users are numbered again."""
        return Examples(
            user_n=np.unique(self.user_n[is_kept_n], return_inverse=True)[1],
            position_n=self.position_n[is_kept_n],
            candidates_n=self.candidates_n[is_kept_n],
            propensity_n=self.propensity_n[is_kept_n],
            text_c=None if self.text_c is None else self.text_c[np.repeat(is_kept_n, self.candidates_n)],
        )

    def truth_of(self, value_c: FloatArray) -> FloatArray:
        """Returns the values of the engaged artworks, given a value for every candidate."""
        return value_c[self.start_n + self.position_n]

    def mass_of(self, policy_c: FloatArray) -> FloatArray:
        """Returns a policy's probability of the engaged artworks, their duplicates included."""
        if self.text_c is None:
            return self.truth_of(policy_c)
        return self.sums_of(np.where(self._reads_engaged_c(self.text_c), policy_c, 0.0))

    def shared(self, value_c: FloatArray) -> FloatArray:
        """Returns the mean of every candidate's values with those of its duplicates."""
        if self.text_c is None:
            return value_c
        owner_c = np.repeat(np.arange(len(self.candidates_n)), self.candidates_n)
        _, group_c = np.unique(owner_c * (int(self.text_c.max()) + 1) + self.text_c, return_inverse=True)
        return (np.bincount(group_c, value_c) / np.bincount(group_c))[group_c]

    def _reads_engaged_c(self, text_c: IntArray) -> NDArray[np.bool_]:
        return text_c == np.repeat(text_c[self.start_n + self.position_n], self.candidates_n)

    def sums_of(self, value_c: FloatArray) -> FloatArray:
        """Returns the sum of each example's candidates' values."""
        return np.add.reduceat(value_c, self.start_n)


@dataclass(frozen=True)
class PolicyOnExamples:
    """What one policy π does in N examples."""

    examples: Examples
    truth_n: FloatArray
    """Probability with which π chooses the engaged artwork, or a duplicate of it."""
    expected_n: FloatArray | None = None
    """The same as a reward model q̂ expects it, `Σ_a π(a) q̂(a)`; NaN where q̂ lacks the example, None without q̂."""

    def where(self, is_kept_n: NDArray[np.bool_]) -> "PolicyOnExamples":
        """Returns the same policy in some of the examples."""
        expected_n = None if self.expected_n is None else self.expected_n[is_kept_n]
        return PolicyOnExamples(self.examples.where(is_kept_n), self.truth_n[is_kept_n], expected_n)


def told_apart(text: IntArray, sizes: IntArray) -> IntArray:
    """Returns the texts of candidates end to end, with a number of its own for each where all of a list read the same.

    There no policy can have chosen by what it read, and the artworks themselves are compared.
    """
    start = np.cumsum(sizes) - sizes
    is_one_text = np.minimum.reduceat(text, start) == np.maximum.reduceat(text, start)
    return np.where(np.repeat(is_one_text, sizes), int(text.max(initial=0)) + 1 + np.arange(len(text)), text)


def highest(score_c: FloatArray | IntArray, examples: Examples) -> FloatArray:
    """Returns every candidate's exact probability under a uniform draw among its example's highest-scored ones."""
    best_c = np.repeat(np.maximum.reduceat(score_c, examples.start_n), examples.candidates_n) == score_c
    return best_c / np.repeat(examples.sums_of(best_c.astype(np.float64)), examples.candidates_n)
