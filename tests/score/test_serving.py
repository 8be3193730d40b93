import datetime
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.serving import draw, propensities, serve
from artsel_ray.score.settings import ServingSettings

DISTRIBUTIONS = st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(any).map(lambda p: np.array(p) / sum(p))
POLICY = ServingSettings()
DISTRIBUTION = [("a", 0.5), ("b", 0.3), ("c", 0.2)]
SCORED_AT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def predictions(users: int) -> pa.Table:
    row = {"title_id": "t", "artwork_id": "a", "probability": 0.5, "model_id": "m", "fingerprint": "f"}
    row |= {"candidates": [{"artwork_id": name, "probability": value} for name, value in DISTRIBUTION]}
    rows = [{"user_id": f"u{number}", **row, "scored_at": SCORED_AT} for number in range(users)]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def test_without_exploration_nothing_changes() -> None:
    assert serve(predictions(3), POLICY).equals(predictions(3))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"explore": "epsilon", "epsilon": 0.3}, {"a": 0.8, "b": 0.1, "c": 0.1}),
        ({"explore": "softmax", "temperature": 1.0}, dict(DISTRIBUTION)),
    ],
)
def test_served_artwork_comes_with_its_propensity(changes: dict, expected: dict[str, float]) -> None:
    table = serve(predictions(4000), replace(POLICY, **changes))
    assert table.schema.equals(PREDICTIONS)
    for row in table.to_pylist():
        assert row["propensity"] == pytest.approx(expected[row["artwork_id"]])
        assert row["probability"] == pytest.approx(dict(DISTRIBUTION)[row["artwork_id"]])
    shares = [table["artwork_id"].to_pylist().count(name) / 4000 for name in expected]
    np.testing.assert_allclose(shares, list(expected.values()), atol=4 * 0.5 / 4000**0.5)


def test_rows_drawn_by_another_run_are_drawn_again() -> None:
    explored = serve(predictions(100), replace(POLICY, explore="epsilon", epsilon=1.0))
    assert set(explored["artwork_id"].to_pylist()) == {"a", "b", "c"}
    assert serve(explored, POLICY).equals(predictions(100))
    again = serve(explored, replace(POLICY, explore="epsilon", epsilon=1.0, seed=1))
    assert again["artwork_id"].to_pylist() != explored["artwork_id"].to_pylist()


def test_model_choice_is_its_artwork_and_not_the_largest_share() -> None:
    # a and b read the same and share .6: the choice is a, though c has the largest single probability.
    listed = [{"artwork_id": name, "probability": value} for name, value in (("a", 0.3), ("b", 0.3), ("c", 0.4))]
    rows = [row | {"candidates": listed, "probability": 0.3} for row in predictions(200).to_pylist()]
    served = serve(pa.Table.from_pylist(rows, PREDICTIONS), replace(POLICY, explore="epsilon", epsilon=0.3))
    expected = {"a": 0.8, "b": 0.1, "c": 0.1}
    assert all(row["propensity"] == pytest.approx(expected[row["artwork_id"]]) for row in served.to_pylist())


@given(DISTRIBUTIONS, st.floats(0, 1), st.floats(0.05, 20), st.text(), st.integers(0, 2**63))
def test_served_candidate_has_a_propensity(
    probability_m: np.ndarray, epsilon: float, temperature: float, user_id: str, seed: int
) -> None:
    for explore in ("none", "epsilon", "softmax"):
        served_m = propensities(probability_m, explore, epsilon, temperature)
        assert served_m.sum() == pytest.approx(1)
        assert (served_m >= 0).all()
        choice = draw(served_m, seed, user_id, "t")
        assert served_m[choice] > 0
        assert choice == draw(served_m, seed, user_id, "t")


def test_propensities_by_hand() -> None:
    probability_m = np.array([0.1, 0.4, 0.4, 0.1])
    assert propensities(probability_m, "none", 0.5, 1).tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(propensities(probability_m, "epsilon", 0.2, 1), [0.05, 0.85, 0.05, 0.05])
    np.testing.assert_allclose(propensities(probability_m, "softmax", 0.2, 1), probability_m)
    np.testing.assert_allclose(propensities(probability_m, "softmax", 0.2, 0.5), np.array([1, 16, 16, 1]) / 34)
    np.testing.assert_allclose(propensities(probability_m, "softmax", 0.2, 1e9), np.full(4, 0.25), atol=1e-8)


@pytest.mark.slow
def test_a_million_draws_follow_the_propensities() -> None:
    # Pearson's chi-squared test: 99.99 % of correct implementations stay below 27.9.
    served_m = propensities(np.array([0.5, 0.25, 0.125, 0.0625, 0.04, 0.0224, 0.0001]), "softmax", 0, 1.3)
    count = 1_000_000
    drawn = [draw(served_m, 7, f"user {number}", "t") for number in range(count)]
    expected_m = served_m * count
    assert float(((np.bincount(drawn, minlength=7) - expected_m) ** 2 / expected_m).sum()) < 27.9


def test_seed_user_and_title_each_change_the_draw() -> None:
    served_m = np.full(1000, 0.001)
    drawn = {draw(served_m, seed, user, title) for seed in range(3) for user in "abc" for title in "xyz"}
    assert len(drawn) > 24
