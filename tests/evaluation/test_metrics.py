import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.evaluation.metrics import Examples, evaluate_log, evaluate_policies, highest
from artsel_ray.evaluation.off_policy import Log

# u1 twice, u2 twice; m = 2, 4, 2, 4; see the table in tests/report/conftest.py.
SMALL = Examples(np.array([0, 0, 1, 1]), np.array([0, 3, 1, 0]), np.array([2, 4, 2, 4]), np.array([0.8, 0.1, 0.2, 0.5]))
HIT_N = np.array([1.0, 1, 0, 0])


@st.composite
def examples(draw: st.DrawFn) -> Examples:
    size_n = np.array(draw(st.lists(st.integers(1, 40), min_size=1, max_size=40)))
    position_n = np.array([draw(st.integers(0, int(size) - 1)) for size in size_n])
    user_n = np.unique([draw(st.integers(0, 9)) for _ in size_n], return_inverse=True)[1]
    propensity_n = np.array([draw(st.sampled_from([np.nan, 0.05, 0.5, 1.0])) for _ in size_n])
    return Examples(user_n, position_n, size_n, propensity_n)


def test_values_by_hand() -> None:
    model = evaluate_policies(SMALL, {"model": HIT_N}, 100, 0)["model"]
    assert {name: model[name]["value"] for name in ("accuracy", "ips", "snips")} == pytest.approx(
        {"accuracy": 2 / 4, "ips": (2 + 4) / 4, "snips": (2 + 4) / 12}
    )
    # 1/0.8 + 1/0.1 = 11.25, and all four 1/p: 1.25 + 10 + 5 + 2 = 18.25
    assert model["ips_logged"]["value"] == pytest.approx(11.25 / 4)
    assert model["snips_logged"]["value"] == pytest.approx(11.25 / 18.25)
    # 11.25² / (1.25² + 10²) = 126.5625 / 101.5625
    assert model["effective_sample_size"] == pytest.approx(126.5625 / 101.5625)


def test_positions_by_hand() -> None:
    rows = evaluate_policies(SMALL, {"model": HIT_N}, 100, 0)["by_position"]
    assert [(row["position"], row["examples"], row["accuracy"]) for row in rows] == [(0, 2, 0.5), (1, 1, 0), (3, 1, 1)]
    # Place 0: m = 2 and m = 4, mean of 1/2 and 1/4.
    assert [row["random"] for row in rows] == pytest.approx([0.375, 0.5, 0.25])


def test_relative_by_hand() -> None:
    policies = {"model": HIT_N, "random": SMALL.uniform_n, "never": np.zeros(4)}
    relative = evaluate_policies(SMALL, policies, 100, 0)["relative"]
    # Random's accuracy is (1/2 + 1/4 + 1/2 + 1/4) / 4 = 0.375, its IPS 1.
    assert relative["random"]["accuracy"]["value"] == pytest.approx(100 * (0.5 / 0.375 - 1))
    assert relative["random"]["ips"]["value"] == pytest.approx(50)
    assert relative["never"]["accuracy"] == {"value": None, "low": None, "high": None}


def test_differences_are_the_models_less_the_others() -> None:
    found = evaluate_policies(SMALL, {"model": HIT_N, "random": SMALL.uniform_n}, 100, 0)["difference"]["random"]
    assert [found[name]["value"] for name in ("accuracy", "ips", "snips")] == pytest.approx([0.125, 0.5, 0.5 - 4 / 12])
    assert found["dm"] == {"value": None, "low": None, "high": None}


def test_direct_method_by_hand() -> None:
    # The model expects a hit of the choice with 0.9 (m = 2), 0.5 (m = 4), not known, and 0.1 (m = 4).
    expected = {"model": np.array([0.9, 0.5, np.nan, 0.1])}
    found = evaluate_policies(SMALL, {"model": HIT_N}, 100, 0, expected)["model"]
    assert found["dm"]["value"] == pytest.approx((1.8 + 2 + 0.4) / 3)


def test_weights_are_cut_for_logged_propensities_alone() -> None:
    model = evaluate_policies(SMALL, {"model": HIT_N}, 100, 0, max_weight=3)["model"]
    # 1/0.8 = 1.25 and 10, cut to 3; all four: 1.25, 3, 3 (of 5), 2.
    assert model["ips_logged"]["value"] == pytest.approx(4.25 / 4)
    assert model["snips_logged"]["value"] == pytest.approx(4.25 / 9.25)
    assert model["ips"]["value"] == pytest.approx(6 / 4)


def test_few_hits_are_told() -> None:
    # (2 + 4)² / (4 + 16) and, of two propensities that are known, 11.25² / (1.25² + 10²).
    two = dataclasses.replace(SMALL, propensity_n=np.array([0.8, 0.1, np.nan, np.nan]))
    assert evaluate_policies(two, {"model": HIT_N}, 100, 0)["model"]["warnings"] == [
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
    found = evaluate_log(logs, np.array([0, 1, 1]), 100, 0)
    assert (found["impressions"], found["logged"]["value"]) == (2, 0.5)
    values = {name: found["policies"]["model"][name]["value"] for name in ("ips", "snips", "dm", "dr", "sndr")}
    assert values == pytest.approx({"ips": 1, "snips": 1, "dm": 0.5, "dr": 0.5 + 0.8 / 2, "sndr": 0.5 + 0.8 / 2})
    # Random: dm 0.4; residuals 1 · 0.4 and 2 · -0.2.
    assert found["policies"]["random"]["sndr"]["value"] == pytest.approx(0.4 + 0 / 3)
    assert found["difference"]["random"]["dr"]["value"] == pytest.approx(0.9 - 0.4)
    assert found["policies"]["random"]["warnings"][1].startswith("the mean weight is 1.50")


def test_highest_scored_candidates_share_the_draw() -> None:
    # Three titles: the truth alone is best; it ties with another; it is not best.
    three = Examples(np.zeros(3, np.int64), np.array([1, 0, 0]), np.array([2, 3, 2]), np.full(3, np.nan))
    score_c = np.array([1, 5, 7, 7, 2, 0, 1])
    assert three.truth_of(highest(score_c, three)).tolist() == [1, 0.5, 0]


@given(examples())
def test_equal_scores_are_the_random_draw(given_examples: Examples) -> None:
    score_c = np.zeros(given_examples.candidates_n.sum())
    policy_c = highest(score_c, given_examples)
    np.testing.assert_allclose(given_examples.truth_of(policy_c), 1 / given_examples.candidates_n)
    np.testing.assert_allclose(given_examples.sums_of(policy_c), 1)


@settings(max_examples=100, deadline=None)
@given(examples(), st.integers(0, 2**32 - 1))
def test_bounds_and_json(given_examples: Examples, seed: int) -> None:
    generator = np.random.default_rng(seed)
    hit_n = (generator.random(len(given_examples.user_n)) < 0.5).astype(float)
    policies = {"model": hit_n, "random": given_examples.uniform_n, "perfect": np.ones(len(hit_n))}
    results = evaluate_policies(given_examples, policies, 50, seed)
    for row in (results["model"], *results["references"].values()):
        for name in ("accuracy", "snips"):
            assert -1e-9 <= row[name]["low"] <= row[name]["high"] <= 1 + 1e-9
        assert row["accuracy"]["value"] <= row["ips"]["value"] + 1e-9
    perfect = results["references"]["perfect"]
    assert perfect["accuracy"] == {"value": 1, "low": 1, "high": 1}
    assert perfect["ips"]["value"] == pytest.approx(given_examples.candidates_n.mean())
    assert sum(row["examples"] for row in results["by_position"]) == len(hit_n)
    hits = sum(row["examples"] * row["accuracy"] for row in results["by_position"])
    assert hits == pytest.approx(hit_n.sum())
    json.dumps(results, allow_nan=False)
