"""How far the policy that logged the examples is from a uniform one, and what follows for the metrics.

Suffix: n examples.
"""

import numpy as np

from artsel_ray.evaluation.examples import Examples, FloatArray, IntArray
from artsel_ray.evaluation.off_policy import effective_sample_size, importance_weights, weight_warnings

_FAR_FROM_UNIFORM = 1.5
"""Factor by which the uniform IPS overrates the logging policy, from which on there is a warning."""


def log_warnings(examples: Examples, artwork_n: IntArray, title_n: IntArray) -> list[str]:
    """Returns the warnings about the policy that logged these examples; none without propensities.

    Args:
        artwork_n: the engaged artworks, by any numbering within a title.
        title_n: their titles.
    """
    return uniformity_warnings(examples, artwork_n, title_n) + propensity_warnings(examples)


def propensity_warnings(examples: Examples) -> list[str]:
    """Warns if propensities are missing in some of the examples, or too few examples support the logged estimates."""
    known_n, count = examples.known_n, len(examples.user_n)
    if not known_n.any():
        return []
    warnings = []
    if missing := count - int(known_n.sum()):
        left_out = "they are left out of SNIPS and IPS with logged π, and count in accuracy and IPS with uniform π"
        warnings.append(f"{missing:,} of {count:,} examples have no usable propensity: {left_out}")
    weight_n = importance_weights(np.ones(count), examples.logging_n)
    found = weight_warnings(weight_n, examples.propensity_n)
    return warnings + [f"SNIPS with logged π, of every policy: {text}" for text in found]


def uniformity_warnings(examples: Examples, artwork_n: IntArray, title_n: IntArray) -> list[str]:
    """Warns if the log is so far from uniform that accuracy and uniform IPS reward repeating it.

    The logging policy itself has a uniform IPS of `mean(m π)`, and by its own propensities is worth `1 / mean(1 / (m
    π))` times a random draw. Their ratio is at least 1, and 1 only for a uniform log.
    """
    known_n = examples.known_n
    if not known_n.any():
        return []
    propensity_n, uniform_n = examples.propensity_n[known_n], 1 / examples.candidates_n[known_n]
    uniform_ips = float((propensity_n / uniform_n).mean())
    value = 1 / float((uniform_n / propensity_n).mean())
    if uniform_ips < _FAR_FROM_UNIFORM * value:
        return []
    most_shown = float(_highest_means(propensity_n, artwork_n[known_n], title_n[known_n]).mean())
    size = effective_sample_size(uniform_n / propensity_n)
    shown = f"a title's most-shown artwork has a mean propensity of {most_shown:.2f} (uniform: {uniform_n.mean():.2f})"
    worth = f"{len(propensity_n):,} examples are worth {size:,.0f} of a uniform log"
    return [
        f"the log is far from uniform: {shown}, and {worth}. Accuracy and IPS with uniform π reward repeating the log, "
        f"which itself has a uniform IPS of {uniform_ips:.2f} where its propensities say {value:.2f}; judge by SNIPS "
        "with logged π"
    ]


def _highest_means(propensity_n: FloatArray, artwork_n: IntArray, title_n: IntArray) -> FloatArray:
    """Returns, for each example, the highest mean propensity among its title's engaged artworks."""
    pairs, pair_n = np.unique(np.stack([title_n, artwork_n], axis=1), axis=0, return_inverse=True)
    mean_p = np.bincount(pair_n.ravel(), propensity_n) / np.bincount(pair_n.ravel())
    titles, title_p = np.unique(pairs[:, 0], return_inverse=True)
    highest_t = np.zeros(len(titles))
    np.maximum.at(highest_t, title_p, mean_p)
    return highest_t[np.searchsorted(titles, title_n)]
