import numpy as np
import pytest
from hypothesis import given

from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.logging_policy import propensity_warnings, uniformity_warnings
from tests.support.examples import given_examples


def logged(propensity: list[float], artwork: list[int], m: int) -> list[str]:
    count = len(propensity)
    examples = Examples(np.arange(count), np.array(artwork), np.full(count, m), np.array(propensity))
    return uniformity_warnings(examples, np.array(artwork), np.arange(count) % 2)


def test_editors_pick_is_warned_about_with_its_figures() -> None:
    # Two titles, whose artwork 0 has 70 % of the impressions: of 100 engagements 70 are with it.
    propensity, artwork = [0.7] * 70 + [0.1] * 30, [0] * 70 + [1] * 30
    (text,) = logged(propensity, artwork, 4)
    assert "most-shown artwork has a mean propensity of 0.70 (uniform: 0.25)" in text
    # m π is 2.8 or 0.4: a mean of 2.08. Weights 0.357 and 2.5, so (25 + 75)² / (70 · 0.1276 + 30 · 6.25).
    assert "itself has a uniform IPS of 2.08 where its propensities say 1.00" in text
    assert "100 examples are worth 51 of a uniform log" in text


def test_uniform_and_mild_logs_pass() -> None:
    assert logged([0.25] * 100, [0] * 100, 4) == []
    assert logged([0.35] * 70 + [0.2] * 30, [0] * 70 + [1] * 30, 4) == []
    assert logged([float("nan")] * 10, [0] * 10, 4) == []


@given(given_examples())
def test_a_uniform_log_of_any_sizes_passes(examples: Examples) -> None:
    uniform = Examples(examples.user_n, examples.position_n, examples.candidates_n, examples.uniform_n)
    assert uniformity_warnings(uniform, examples.position_n, np.zeros_like(examples.user_n)) == []


def given_propensities(values: list[float]) -> list[str]:
    count = len(values)
    return propensity_warnings(Examples(np.arange(count), np.zeros(count, int), np.full(count, 4), np.array(values)))


def test_missing_propensities_are_counted() -> None:
    nan = float("nan")
    assert given_propensities([nan] * 5) == given_propensities([0.5] * 100) == []
    (text,) = given_propensities([0.5] * 997 + [nan] * 3)
    assert text.startswith("3 of 1,000 examples have no usable propensity: they are left out of SNIPS and IPS with")


@pytest.mark.parametrize(
    ("values", "shown"),
    [([1e-6] + [0.5] * 999, "rest on 1 of 1,000 examples"), ([0.5] * 10, "rest on 10 of 10 examples")],
)
def test_weights_that_rest_on_few_examples_are_warned_about_for_every_policy(values: list[float], shown: str) -> None:
    (text,) = given_propensities(values)
    assert text.startswith("SNIPS with logged π, of every policy: ")
    assert shown in text
