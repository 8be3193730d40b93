"""The model, its references and the oracle as policies on the examples."""

import numpy as np

from artsel_ray.evaluate.choices import PredictedChoices
from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluation.examples import FloatArray, IntArray, PolicyOnExamples, highest

ORACLE, EXPECTED_BEST, BEST_LOGGED = "oracle", "expected_best", "best_logged"
SERVED = {"model": "served", "baseline": "baseline_served"}
"""Names of the policies as served, where a run explored."""


def policies_of(
    table: ExampleTable,
    choices: dict[str, PredictedChoices],
    engagements_c: IntArray | None,
    has_reward_model: bool = True,
) -> dict[str, PolicyOnExamples]:
    """Returns the policies by name, in the order in which the report shows them.

    `expected_best` is the oracle under its own distribution: the accuracy that it reaches on average. `best_logged` is
    the oracle that is best for logged propensities. `SERVED` are the policies of runs that explored, as served.

    Args:
        choices: of the model and, if given, of the oracles and the baseline, whose probabilities are the reward model.
        engagements_c: engagements with each candidate in the train examples, if there are some.
        has_reward_model: whether the baseline's probabilities are good enough to be the reward model.
    """
    examples = table.examples
    reward_model_c = (
        examples.shared(choices["baseline"].probability_c) if "baseline" in choices and has_reward_model else None
    )

    def policy(policy_c: FloatArray) -> PolicyOnExamples:
        expected_n = None if reward_model_c is None else examples.sums_of(policy_c * reward_model_c)
        return PolicyOnExamples(examples, examples.mass_of(policy_c), expected_n)

    policies = {"model": policy(choices["model"].policy_c(table))}
    if (served_c := choices["model"].served_c) is not None:
        policies[SERVED["model"]] = policy(served_c)
    policies["random"] = policy(examples.uniform_c)
    if engagements_c is not None:
        policies["popularity"] = policy(highest(engagements_c, examples))
    if ORACLE in choices:
        policies[ORACLE] = policy(choices[ORACLE].policy_c(table))
        policies[EXPECTED_BEST] = PolicyOnExamples(examples, np.nan_to_num(choices[ORACLE].probability_n))
    if BEST_LOGGED in choices:
        policies[BEST_LOGGED] = policy(choices[BEST_LOGGED].policy_c(table))
    if "baseline" in choices:
        policies["baseline"] = policy(choices["baseline"].policy_c(table))
        if (served_c := choices["baseline"].served_c) is not None:
            policies[SERVED["baseline"]] = policy(served_c)
    return policies
