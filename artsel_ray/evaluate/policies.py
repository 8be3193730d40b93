"""What every policy does in the examples.

Suffixes: n examples, c candidates of all of them end to end.
"""

import numpy as np

from artsel_ray.evaluate.choices import Choices, Oracle
from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluation.metrics import FloatArray, IntArray, highest


def policies_of(
    table: ExampleTable, choices: dict[str, Choices], oracle: Oracle | None, counts: IntArray | None
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Returns each policy's probability of the engaged artwork, and the one that the baseline's model expects.

    They are in the order in which the report shows them; nothing is expected without a baseline that gives every
    candidate's probability.
    """
    examples = table.examples
    truth: dict[str, FloatArray] = {}
    expected: dict[str, FloatArray] = {}
    model_c = choices["baseline"].probability_c if "baseline" in choices else None
    for name in ("model", "random", "popularity", "oracle", "baseline"):
        if name == "random":
            policy_c = np.repeat(examples.uniform_n, examples.candidates_n)
        elif name == "popularity" and counts is not None:
            policy_c = highest(counts, examples)
        elif name in choices:
            policy_c = choices[name].policy_c(table)
        else:
            continue
        truth[name] = examples.truth_of(policy_c)
        if model_c is not None:
            expected[name] = examples.sums_of(policy_c * model_c)
        if name == "oracle" and oracle:
            truth["expected_best"] = oracle.best_n
    return truth, expected
