import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.evaluation.bootstrap import Measurement
from artsel_ray.evaluation.examples import UNKNOWN, Examples, FloatArray, PolicyOnExamples
from artsel_ray.evaluation.off_policy import Log
from artsel_ray.evaluation.policies import (
    EstimateSettings,
    ExampleResults,
    PermutedChoices,
    evaluate_log,
    evaluate_policies,
    measure_position_bias,
)
from tests.support.examples import given_examples

# u1 twice, u2 twice; m = 2, 4, 2, 4; see the table in tests/support/evaluation_tables.py.
SMALL = Examples(np.array([0, 0, 1, 1]), np.array([0, 3, 1, 0]), np.array([2, 4, 2, 4]), np.array([0.8, 0.1, 0.2, 0.5]))
HIT_N = np.array([1.0, 1, 0, 0])
# Two users, three examples of 2, 2 and 3 candidates.
THREE = Examples(np.array([0, 0, 1]), np.zeros(3, np.int64), np.array([2, 2, 3]), np.full(3, np.nan))
UNDEFINED = Measurement(None, None, None)


def evaluated(
    policies: dict[str, FloatArray], examples: Examples = SMALL, max_weight: float = math.inf
) -> ExampleResults:
    on_examples = {name: PolicyOnExamples(examples, truth_n) for name, truth_n in policies.items()}
    return evaluate_policies(on_examples, EstimateSettings(100, 0, max_weight))


def test_values_by_hand() -> None:
    model = evaluated({"model": HIT_N}).policies["model"]
    values = {name: measurement.value for name, measurement in model.metrics.items()}
    assert {name: values[name] for name in ("accuracy", "ips", "snips")} == pytest.approx(
        {"accuracy": 2 / 4, "ips": (2 + 4) / 4, "snips": (2 + 4) / 12}
    )
    # 1/0.8 + 1/0.1 = 11.25, and all four 1/p: 1.25 + 10 + 5 + 2 = 18.25
    assert values["ips_logged"] == pytest.approx(11.25 / 4)
    assert values["snips_logged"] == pytest.approx(11.25 / 18.25)
    # 11.25² / (1.25² + 10²) = 126.5625 / 101.5625
    assert model.effective_sample_size == pytest.approx(126.5625 / 101.5625)


def test_positions_by_hand() -> None:
    rows = evaluated({"model": HIT_N}).by_position
    assert [(row.position, row.examples, row.accuracy) for row in rows] == [(0, 2, 0.5), (1, 1, 0), (3, 1, 1)]
    # Position 0: m = 2 and m = 4, mean of 1/2 and 1/4.
    assert [row.random for row in rows] == pytest.approx([0.375, 0.5, 0.25])


def test_relative_by_hand() -> None:
    relative = evaluated({"model": HIT_N, "random": SMALL.uniform_n, "never": np.zeros(4)}).relative
    # Random's accuracy is (1/2 + 1/4 + 1/2 + 1/4) / 4 = 0.375, its IPS 1.
    assert relative["random"]["accuracy"].value == pytest.approx(100 * (0.5 / 0.375 - 1))
    assert relative["random"]["ips"].value == pytest.approx(50)
    assert relative["never"]["accuracy"] == UNDEFINED
    # 1/p: 1.25, 10, 5, 2. SNIPS is 11.25 / 18.25, random's (1.25/2 + 10/4 + 5/2 + 2/4) / 18.25.
    assert relative["random"]["snips_logged"].value == pytest.approx(100 * (11.25 / 6.125 - 1))
    assert relative["random"].keys() == {"snips_logged", "ips_logged", "accuracy", "ips"}
    without = dataclasses.replace(SMALL, propensity_n=np.full(4, np.nan))
    assert evaluated({"model": HIT_N, "random": SMALL.uniform_n}, without).relative["random"].keys() == {
        *("accuracy", "ips")
    }


def test_differences_are_the_model_minus_the_others() -> None:
    found = evaluated({"model": HIT_N, "random": SMALL.uniform_n}).difference["random"]
    assert [found[name].value for name in ("accuracy", "ips", "snips")] == pytest.approx([0.125, 0.5, 0.5 - 4 / 12])
    assert found["dm"] == UNDEFINED


def test_direct_method_by_hand() -> None:
    # The reward model expects a hit of the choice with 0.9 (m = 2), 0.5 (m = 4), not known, and 0.1 (m = 4).
    policy = PolicyOnExamples(SMALL, HIT_N, np.array([0.9, 0.5, np.nan, 0.1]))
    found = evaluate_policies({"model": policy}, EstimateSettings(100, 0)).policies["model"]
    assert found.metrics["dm"].value == pytest.approx((1.8 + 2 + 0.4) / 3)


def test_only_weights_by_logged_propensities_are_clipped() -> None:
    found = evaluated({"model": HIT_N}, max_weight=3).policies["model"].metrics
    # 1/0.8 = 1.25 and 10, clipped to 3; all four: 1.25, 3, 3 (of 5), 2.
    assert found["ips_logged"].value == pytest.approx(4.25 / 4)
    assert found["snips_logged"].value == pytest.approx(4.25 / 9.25)
    assert found["ips"].value == pytest.approx(6 / 4)


def test_few_hits_are_warned_about() -> None:
    # (2 + 4)² / (4 + 16) and, of two propensities that are known, 11.25² / (1.25² + 10²).
    two = dataclasses.replace(SMALL, propensity_n=np.array([0.8, 0.1, np.nan, np.nan]))
    assert evaluated({"model": HIT_N}, two).policies["model"].warnings == [
        "ips: the weights rest on 2 of 4 examples; do not trust this number",
        "ips_logged: the weights rest on 1 of 2 examples; do not trust this number",
    ]


def test_log_by_hand() -> None:
    # Two actions, shown with 0.5 or 0.25; the third has no propensity. Weights of the model: 2, 0; of random: 1, 2.
    reward, logging = np.array([1.0, 0, 1]), np.array([0.5, 0.25, np.nan])
    logs = {
        "model": Log(reward, logging, np.array([1.0, 0, 1]), np.array([0.6, 0.2, 0.5]), np.array([0.6, 0.4, 0.5])),
        "random": Log(reward, logging, np.full(3, 0.5), np.array([0.6, 0.2, 0.5]), np.array([0.5, 0.3, 0.5])),
    }
    found = evaluate_log(logs, np.array([0, 1, 1]), EstimateSettings(100, 0))
    assert (found.impressions, found.logged.value) == (2, 0.5)
    values = {name: measurement.value for name, measurement in found.policies["model"].metrics.items()}
    assert values == pytest.approx({"ips": 1, "snips": 1, "dm": 0.5, "dr": 0.5 + 0.8 / 2, "sndr": 0.5 + 0.8 / 2})
    # Random: dm 0.4; residuals 1 · 0.4 and 2 · -0.2.
    assert found.policies["random"].metrics["sndr"].value == pytest.approx(0.4 + 0 / 3)
    assert found.difference["random"]["dr"].value == pytest.approx(0.9 - 0.4)
    assert found.policies["random"].warnings[1].startswith("the mean weight is 1.50")


@settings(max_examples=100, deadline=None)
@given(given_examples(), st.integers(0, 2**32 - 1))
def test_bounds_and_json(examples: Examples, seed: int) -> None:
    hit_n = (np.random.default_rng(seed).random(len(examples.user_n)) < 0.5).astype(float)
    policies = {"model": hit_n, "random": examples.uniform_n, "perfect": np.ones(len(hit_n))}
    on_examples = {name: PolicyOnExamples(examples, truth_n) for name, truth_n in policies.items()}
    results = evaluate_policies(on_examples, EstimateSettings(50, seed))
    as_json = json.loads(json.dumps(dataclasses.asdict(results), allow_nan=False))
    for row in as_json["policies"].values():
        for name in ("accuracy", "snips"):
            assert -1e-9 <= row["metrics"][name]["low"] <= row["metrics"][name]["high"] <= 1 + 1e-9
        assert row["metrics"]["accuracy"]["value"] <= row["metrics"]["ips"]["value"] + 1e-9
    perfect = results.policies["perfect"].metrics
    assert (perfect["accuracy"].value, perfect["accuracy"].high) == (1, 1)
    assert perfect["ips"].value == pytest.approx(examples.candidates_n.mean())
    assert sum(row.examples for row in results.by_position) == len(hit_n)
    hits = sum(row["examples"] * row["accuracy"] for row in as_json["by_position"])
    assert hits == pytest.approx(hit_n.sum())


def test_position_bias_by_hand() -> None:
    choices = PermutedChoices(
        choice_rn=np.array([[1, 4, 7], [1, 5, UNKNOWN], [2, 4, 7]]),
        hit_rn=np.array([[True, False, True], [True, True, False], [False, False, True]]),
        chosen_rn=np.array([[0, 0, 2], [1, 0, UNKNOWN], [0, 0, 1]]),
        truth_rn=np.array([[0, 1, 2], [1, 0, 0], [1, 1, 1]]),
    )
    found = measure_position_bias(choices, THREE, EstimateSettings(100, 0))
    # Of the first example's three pairs of runs one agrees, of the second's one, and the third has only one pair.
    assert found.agreement.value == pytest.approx(3 / 7)
    assert found.accuracy.value == pytest.approx(5 / 9)
    rows = found.by_place
    assert [row.position for row in rows] == [0, 1, 2]
    assert [row.chosen.value for row in rows] == pytest.approx([5 / 8, 2 / 8, 1 / 2])
    assert [row.random for row in rows] == pytest.approx([4 / 9, 4 / 9, 1 / 3])
    # Position 0: hits of examples 0 and 1, a miss of 2. Position 1: miss, hit, miss, miss, hit. Position 2: a hit.
    assert [row.accuracy.value for row in rows] == pytest.approx([2 / 3, 2 / 5, 1])
    assert [row.examples for row in rows] == [3, 5, 1]
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_preference_for_a_position_differs_from_preference_for_an_artwork() -> None:
    rng = np.random.default_rng(0)
    n, runs = 2_000, 4
    examples = Examples(np.arange(n), np.zeros(n, np.int64), np.full(n, 4), np.full(n, np.nan))
    # order[r, n, a] is the position of artwork a; the engaged artwork is 0.
    order = rng.permuted(np.tile(np.arange(4), (runs, n, 1)), axis=2)
    first = order.argmin(axis=2)
    estimates = EstimateSettings(50, 0)
    of_position = PermutedChoices(first, first == 0, np.zeros_like(first), order[:, :, 0])
    position = measure_position_bias(of_position, examples, estimates)
    assert position.by_place[0].chosen.value == 1
    # Two random artworks of four are the same in a quarter of the cases.
    assert position.agreement.value == pytest.approx(0.25, abs=0.03)
    liked = np.full((runs, n), 2)
    of_artwork = PermutedChoices(liked, liked == 0, order[:, :, 2], order[:, :, 0])
    artwork = measure_position_bias(of_artwork, examples, estimates)
    assert (artwork.agreement.value, artwork.agreement.high) == (1, 1)
    assert [row.chosen.value for row in artwork.by_place] == pytest.approx([0.25] * 4, abs=0.03)


def test_agreement_without_known_orders() -> None:
    choice = np.array([[1, 4, 7], [1, 4, 7]])
    unknown = np.full((2, 3), UNKNOWN)
    choices = PermutedChoices(choice, choice == 1, unknown, unknown)
    found = measure_position_bias(choices, THREE, EstimateSettings(20, 0))
    assert (found.agreement.value, found.by_place) == (1, [])


def test_on_a_log_of_editors_picks_the_logged_estimates_find_the_truth_and_the_uniform_ones_do_not() -> None:
    # Every title's artwork 0 is shown with 0.7, the other three with 0.1. A user engages with one of the four, by the
    # user's own taste, with 0.3, and with the others with 0.1. Copying the log, random choice and the log itself are
    # worth 0.15 engagements per impression, the oracle 0.3.
    rng = np.random.default_rng(0)
    shown_a, count = np.array([0.7, 0.1, 0.1, 0.1]), 60_000
    taste_n, action_n = rng.integers(4, size=count), rng.choice(4, p=shown_a, size=count)
    engaged_n = rng.random(count) < np.where(action_n == taste_n, 0.3, 0.1)
    taste_n, action_n = taste_n[engaged_n], action_n[engaged_n]
    users_n = np.arange(len(action_n))
    examples = Examples(users_n, action_n, np.full(len(action_n), 4), shown_a[action_n])
    policies = {
        "model": (action_n == taste_n).astype(float),
        "most engaged": (action_n == 0).astype(float),
        "random": examples.uniform_n,
    }
    on_examples = {name: PolicyOnExamples(examples, truth_n) for name, truth_n in policies.items()}
    found = evaluate_policies(on_examples, EstimateSettings(500, 0)).policies
    # SNIPS is the engagement over the sum of the four artworks', 0.6; IPS the engagement over the log's.
    for name, snips, ips in (("model", 0.5, 2.0), ("most engaged", 0.25, 1.0), ("random", 0.25, 1.0)):
        for metric, truth in (("snips_logged", snips), ("ips_logged", ips)):
            measured = found[name].metrics[metric]
            assert measured.low is not None
            assert measured.high is not None
            assert measured.low <= truth <= measured.high, (name, metric, measured)
    # By the uniform IPS, copying the log is worth far more than a random draw, and more than the best policy.
    uniform = {name: result.metrics["ips"] for name, result in found.items()}
    assert uniform["most engaged"].low is not None
    assert uniform["most engaged"].low > 2.5
    assert uniform["model"].high is not None
    assert uniform["most engaged"].low > uniform["model"].high
