"""Choices on held-out examples while something is trained, and the weights that training takes from propensities.

Suffix: n examples. Sums can be added over batches and workers before they are turned into metrics.
"""

from collections.abc import Mapping

import numpy as np

from artsel_ray.evaluation.examples import FloatArray, IntArray
from artsel_ray.evaluation.metrics import headline
from artsel_ray.evaluation.off_policy import importance_weights

MAX_WEIGHT = 10.0
"""Default cap of training's weights: 1 is the weight of an example of a uniform log."""
SUMS = 8
"""Number of sums of `held_out_sums`."""
METRICS = ("snips_logged", "snips_logged_random", "ips_logged", "effective_sample_size", "accuracy", "ips")
"""Names of `held_out_metrics`; the first four only where propensities are known."""


def held_out_sums(hit_n: FloatArray, candidates_n: IntArray | FloatArray, propensity_n: FloatArray) -> FloatArray:
    """Returns `[SUMS]` sums of N choices: what `held_out_metrics` needs.

    Args:
        hit_n: 1 where the engaged artwork was chosen, else 0; NaN where the model's answer was NaN.
        candidates_n: with duplicates of the engaged artwork, one over the share of all of them.
        propensity_n: with duplicates, of all of them; NaN where it is not known, and the example is left out of the
            logged estimates.
    """
    weight_n = importance_weights(np.ones(len(hit_n)), propensity_n)
    hit_weight_n = weight_n * hit_n
    terms = (
        np.ones(len(hit_n)), hit_n, hit_n * candidates_n,
        ~np.isnan(propensity_n), weight_n, weight_n / candidates_n, hit_weight_n, hit_weight_n**2,
    )  # fmt: skip
    return np.array([term_n.sum() for term_n in terms], dtype=np.float64)


def held_out_metrics(sums: FloatArray) -> dict[str, float]:
    """Returns accuracy and IPS with uniform π and, where propensities are known, the logged estimates.

    `snips_logged_random` is what a random draw has: a SNIPS says something only next to it.
    """
    count, hits, uniform, known, weight, random, hit_weight, squares = sums.tolist()
    metrics = {"accuracy": hits / count, "ips": uniform / count}
    if not known:
        return metrics
    return {
        "snips_logged": hit_weight / weight,
        "snips_logged_random": random / weight,
        "ips_logged": hit_weight / known,
        "effective_sample_size": hit_weight**2 / squares if squares else 0.0,
        **metrics,
    }


def headline_of(metrics: Mapping[str, float | None], prefix: str = "") -> str:
    """Returns the name of the metric that selects among models: logged SNIPS where there is one, else uniform IPS."""
    return prefix + headline(has_propensities=metrics.get(prefix + headline(True)) is not None)


def shown_metrics(metrics: Mapping[str, float | None], prefix: str = "") -> str:
    """Returns the metrics as a line has them, the one that selects first."""
    value = {name: metrics.get(prefix + name) for name in METRICS}
    if value["snips_logged"] is None:
        return f"accuracy {value['accuracy']:.4f}, IPS {value['ips']:.4f}"
    return (
        f"SNIPS {value['snips_logged']:.4f} (random {value['snips_logged_random']:.4f}, effective sample "
        f"{value['effective_sample_size']:,.0f}), IPS {value['ips_logged']:.4f}, accuracy {value['accuracy']:.4f}, "
        f"IPS with uniform π {value['ips']:.4f}"
    )


def selection_note(trials: int) -> str:
    """Returns what to print next to the best trial's metrics on the examples that chose it; nothing for one trial."""
    if trials < 2:
        return ""
    return f"the best of {trials} trials on these examples, and so too high; only examples that did not choose it tell"


def training_weights(candidates_n: IntArray, propensity_n: FloatArray, max_weight: float) -> FloatArray:
    """Returns `w_n = min(1 / (m_n · π_n), max_weight)`, divided by its mean: as if the log had been uniform.

    Weighted by `1/π`, the log-likelihood of engaged artworks is one of the policy's engagement and not of the log's
    habits (arXiv 2509.03456). With the factor `1/m` a uniform log has equal weights, whatever a title's number of
    candidates, and the cap means the same for all titles. The mean of 1 keeps the learning rate's meaning.
    """
    weight_n = importance_weights(1.0 / candidates_n, propensity_n, max_weight)
    return weight_n / weight_n.mean()
