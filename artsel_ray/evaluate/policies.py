"""The model and its references as policies on the examples.

Suffixes: n examples, c candidates of all of them end to end.
"""

from collections.abc import Iterator

import numpy as np

from artsel_ray.evaluate.choices import PredictedChoices
from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluation.examples import FloatArray, IntArray, PolicyOnExamples, highest

ORACLE, EXPECTED_BEST = "oracle", "expected_best"


def policies_of(
    table: ExampleTable, choices: dict[str, PredictedChoices], engagements_c: IntArray | None
) -> dict[str, PolicyOnExamples]:
    """Returns the policies by name, in the order in which the report shows them.

    `expected_best` is the oracle under its own distribution: the accuracy that it reaches on average.

    Args:
        choices: of the model and, if given, of the oracle and the baseline, whose probabilities are the reward model.
        engagements_c: engagements with each candidate in the train examples, if there are some.
    """
    examples, policies = table.examples, {}
    reward_model_c = choices["baseline"].probability_c if "baseline" in choices else None
    for name, policy_c in _probabilities(table, choices, engagements_c):
        expected_n = None if reward_model_c is None else examples.sums_of(policy_c * reward_model_c)
        policies[name] = PolicyOnExamples(examples, examples.truth_of(policy_c), expected_n)
        if name == ORACLE:
            policies[EXPECTED_BEST] = PolicyOnExamples(examples, np.nan_to_num(choices[ORACLE].probability_n))
    return policies


def _probabilities(
    table: ExampleTable, choices: dict[str, PredictedChoices], engagements_c: IntArray | None
) -> Iterator[tuple[str, FloatArray]]:
    """Yields each policy's probability of every candidate, one policy at a time to save memory."""
    yield "model", choices["model"].policy_c(table)
    yield "random", random_policy_c(table)
    if engagements_c is not None:
        yield "popularity", highest(engagements_c, table.examples)
    for name in (ORACLE, "baseline"):
        if name in choices:
            yield name, choices[name].policy_c(table)


def random_policy_c(table: ExampleTable) -> FloatArray:
    """Returns every candidate's probability under a uniform draw, 1/m."""
    return np.repeat(table.examples.uniform_n, table.examples.candidates_n)
