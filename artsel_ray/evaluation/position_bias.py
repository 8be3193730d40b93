"""How much the place of a candidate decides: the same examples with their candidates in several orders.

Suffixes: r runs (orders), n examples.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation.bootstrap import bootstrap
from artsel_ray.evaluation.metrics import Examples, IntArray, plain
from artsel_ray.evaluation.off_policy import Terms

UNKNOWN = -1


@dataclass(frozen=True)
class Orders:
    """What R runs chose in N examples.

    Attributes:
        choice_rn: the artwork chosen, by any numbering; `UNKNOWN` where a run has none.
        hit_rn: whether it is the engaged one.
        chosen_rn: 0-based place at which it was shown; `UNKNOWN` where it is not known.
        truth_rn: the same of the engaged artwork.
    """

    choice_rn: IntArray
    hit_rn: NDArray[np.bool_]
    chosen_rn: IntArray
    truth_rn: IntArray


def audit(orders: Orders, examples: Examples, resamples: int, seed: int) -> dict[str, Any]:
    """Returns `permutations` of metrics.json, each number with its interval over users.

    Without any influence of places agreement is 1, and every place is chosen as often as `random` (the mean of 1/m)
    in orders that are drawn at random.

    Returns:
        `runs`; `agreement`, how often two runs choose the same artwork, over all pairs of runs with an answer each;
        `accuracy`, over all runs; `by_place`: for each place at which a candidate can be shown the share of choices
        that fall on it (`chosen`), `random`, and the accuracy where the engaged artwork is shown at it, out of
        `examples` such answers.
    """
    runs = len(orders.choice_rn)
    places = int(orders.truth_rn.max(initial=UNKNOWN)) + 1

    def terms() -> Iterator[tuple[str, Terms]]:
        pairs = list(itertools.combinations(range(runs), 2))
        both = [(orders.choice_rn[a] != UNKNOWN) & (orders.choice_rn[b] != UNKNOWN) for a, b in pairs]
        same = [(orders.choice_rn[a] == orders.choice_rn[b]) & each for (a, b), each in zip(pairs, both, strict=True)]
        yield "agreement", Terms(np.sum(same, axis=0, dtype=float), np.sum(both, axis=0, dtype=float))
        yield "accuracy", Terms(orders.hit_rn.sum(0, dtype=float), np.full(len(examples.user_n), float(runs)))
        for place in range(places):
            shown_rn = (orders.chosen_rn != UNKNOWN) & (examples.candidates_n > place)
            chosen_rn = orders.chosen_rn == place
            yield f"chosen@{place}", Terms(chosen_rn.sum(0, dtype=float), shown_rn.sum(0, dtype=float))
            at_rn = orders.truth_rn == place
            yield f"accuracy@{place}", Terms((at_rn & orders.hit_rn).sum(0, dtype=float), at_rn.sum(0, dtype=float))

    estimates = bootstrap(terms(), examples.user_n, resamples, seed)
    return {
        "runs": runs,
        "agreement": plain(estimates["agreement"]),
        "accuracy": plain(estimates["accuracy"]),
        "by_place": [
            {
                "position": place,
                "examples": int((orders.truth_rn == place).sum()),
                "chosen": plain(estimates[f"chosen@{place}"]),
                "random": float(examples.uniform_n[examples.candidates_n > place].mean()),
                "accuracy": plain(estimates[f"accuracy@{place}"]),
            }
            for place in range(places)
        ],
    }
