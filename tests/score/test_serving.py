import datetime
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.exploration import ServingPolicy
from artsel_ray.score.serving import serve

POLICY = ServingPolicy()
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
