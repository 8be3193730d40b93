from pathlib import Path

import numpy as np
import pytest

from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.example_table import ExampleTable, read_examples, read_train
from artsel_ray.evaluate.policies import policies_of
from tests.support.evaluation_tables import ranked, write


@pytest.fixture
def table(small: Path) -> ExampleTable:
    return read_examples(str(small / "examples/test"))


def test_references_that_are_not_given_are_absent(small: Path, table: ExampleTable) -> None:
    choices = {"model": read_choices(str(small / "predictions"), table)}
    policies = policies_of(table, choices, None)
    assert list(policies) == ["model", "random"]
    assert policies["model"].truth_n.tolist() == [1, 1, 0, 0]
    assert policies["random"].truth_n.tolist() == [0.5, 0.25, 0.5, 0.25]
    assert policies["model"].expected_n is None


def test_popularity_and_the_baselines_expectations_by_hand(small: Path, table: ExampleTable) -> None:
    rows = [ranked("u1", "t1", [0.7, 0.3]), ranked("u2", "t1", [0.4, 0.6])]
    baseline = read_choices(write(small / "baseline", "predictions", rows), table, ranked=True)
    choices = {"model": read_choices(str(small / "predictions"), table), "baseline": baseline}
    train = read_train(str(small / "examples/test"), table)
    policies = policies_of(table, choices, train.engagements_c)
    assert list(policies) == ["model", "random", "popularity", "baseline"]
    # Of t1 both artworks are engaged with once, of t2 the first and the last.
    assert policies["popularity"].truth_n.tolist() == [0.5, 0.5, 0.5, 0.5]
    # The model chooses t1-0 for both users; the baseline lacks t2.
    for name, expected in (("model", [0.7, np.nan, 0.4, np.nan]), ("baseline", [0.7, np.nan, 0.6, np.nan])):
        expected_n = policies[name].expected_n
        assert expected_n is not None
        np.testing.assert_allclose(expected_n, expected)


def test_random_policy_sums_to_one(table: ExampleTable) -> None:
    assert table.examples.sums_of(table.examples.uniform_c).tolist() == [1, 1, 1, 1]
