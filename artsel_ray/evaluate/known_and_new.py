"""Known and new titles apart: a title is new if no train example has it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluation.examples import PolicyOnExamples
from artsel_ray.evaluation.policies import EstimateSettings, ExampleResults, evaluate_policies


@dataclass(frozen=True)
class TitlesResult:
    """What policies are worth on the examples of one kind of titles."""

    examples: int
    users: int
    titles: int
    missing: int
    """Number of examples without a prediction of the model."""
    results: ExampleResults


def evaluate_titles(
    table: ExampleTable,
    policies: Mapping[str, PolicyOnExamples],
    is_new_n: NDArray[np.bool_],
    missing_n: NDArray[np.bool_],
    settings: EstimateSettings,
) -> dict[str, TitlesResult]:
    """Returns the results for `known` and for `new` titles that have examples; nothing if no title is new.

    Intervals are over users, and for new titles over users and titles: more of either could be new.
    """
    if not is_new_n.any():
        return {}
    kinds = {"known": ~is_new_n, "new": is_new_n}
    return {
        name: _of_titles(table, policies, is_kind_n, missing_n, settings, name == "new")
        for name, is_kind_n in kinds.items()
        if is_kind_n.any()
    }


def _of_titles(
    table: ExampleTable,
    policies: Mapping[str, PolicyOnExamples],
    is_kind_n: NDArray[np.bool_],
    missing_n: NDArray[np.bool_],
    settings: EstimateSettings,
    is_over_titles: bool,
) -> TitlesResult:
    titles, title_n = np.unique(table.title_n[is_kind_n], return_inverse=True)
    of_kind = {name: policy.where(is_kind_n) for name, policy in policies.items()}
    return TitlesResult(
        examples=int(is_kind_n.sum()),
        users=len(np.unique(table.examples.user_n[is_kind_n])),
        titles=len(titles),
        missing=int((missing_n & is_kind_n).sum()),
        results=evaluate_policies(of_kind, settings, title_n if is_over_titles else None),
    )
