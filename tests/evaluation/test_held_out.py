import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.held_out import (
    METRICS,
    SUMS,
    headline_of,
    held_out_metrics,
    held_out_sums,
    selection_note,
    shown_metrics,
    training_weights,
)
from tests.support.examples import given_examples

# The four examples of tests/support/evaluation_tables.py, of which the first two are hits.
HIT_N, CANDIDATES_N = np.array([True, True, False, False]), np.array([2, 4, 2, 4])
PROPENSITY_N = np.array([0.8, 0.1, 0.2, 0.5])


def test_metrics_by_hand() -> None:
    found = held_out_metrics(held_out_sums(HIT_N, CANDIDATES_N, PROPENSITY_N))
    assert tuple(found) == METRICS
    # 1/p: 1.25, 10, 5, 2; of a random draw 1/(m p): 0.625, 2.5, 2.5, 0.5.
    assert found == pytest.approx(
        {
            "snips_logged": 11.25 / 18.25,
            "snips_logged_random": 6.125 / 18.25,
            "ips_logged": 11.25 / 4,
            "effective_sample_size": 11.25**2 / (1.25**2 + 100),
            "accuracy": 0.5,
            "ips": 1.5,
        }
    )


def test_examples_without_a_propensity_are_left_out_of_the_logged_metrics_alone() -> None:
    some = np.where(PROPENSITY_N == 0.1, np.nan, PROPENSITY_N)
    found = held_out_metrics(held_out_sums(HIT_N, CANDIDATES_N, some))
    assert [found[name] for name in ("snips_logged", "ips_logged", "accuracy", "ips")] == pytest.approx(
        [1.25 / 8.25, 1.25 / 3, 0.5, 1.5]
    )
    assert held_out_metrics(held_out_sums(HIT_N, CANDIDATES_N, np.full(4, np.nan))) == {"accuracy": 0.5, "ips": 1.5}


def test_sums_of_parts_are_those_of_all() -> None:
    parts = [held_out_sums(HIT_N[at], CANDIDATES_N[at], PROPENSITY_N[at]) for at in (slice(1), slice(1, 4))]
    np.testing.assert_allclose(sum(parts), held_out_sums(HIT_N, CANDIDATES_N, PROPENSITY_N))
    assert len(parts[0]) == SUMS


def test_logged_snips_selects_where_there_is_one() -> None:
    logged = held_out_metrics(held_out_sums(HIT_N, CANDIDATES_N, PROPENSITY_N))
    uniform = {"validation_accuracy": 0.5, "validation_ips": 1.5, "validation_snips_logged": None}
    assert headline_of(logged) == "snips_logged"
    assert headline_of(uniform, "validation_") == "validation_ips"
    assert shown_metrics(uniform, "validation_") == "accuracy 0.5000, IPS 1.5000"
    assert shown_metrics(logged) == (
        "SNIPS 0.6164 (random 0.3356, effective sample 1), IPS 2.8125, accuracy 0.5000, IPS with uniform π 1.5000"
    )


@given(given_examples(), st.floats(0.01, 1.0))
def test_snips_is_bounded_and_the_same_if_all_propensities_are_off_by_a_factor(
    examples: Examples, factor: float
) -> None:
    hit_n = np.arange(len(examples.user_n)) % 2 == 0
    found, scaled = (
        held_out_metrics(held_out_sums(hit_n, examples.candidates_n, examples.propensity_n * each))
        for each in (1.0, factor)
    )
    if "snips_logged" in found:
        assert 0 <= found["snips_logged"] <= 1 + 1e-12
        for name in ("snips_logged", "snips_logged_random", "effective_sample_size"):
            assert scaled[name] == pytest.approx(found[name])
        assert scaled["ips_logged"] == pytest.approx(found["ips_logged"] / factor)


def test_on_a_uniform_log_the_ratio_to_random_is_the_papers_ips() -> None:
    found = held_out_metrics(held_out_sums(HIT_N, CANDIDATES_N, 1 / CANDIDATES_N))
    assert found["snips_logged"] / found["snips_logged_random"] == pytest.approx(found["ips"])
    assert found["ips_logged"] == pytest.approx(found["ips"])


def test_training_weights_by_hand() -> None:
    # 1/(m p): 0.625, 2.5, 2.5, 0.5, with a mean of 1.53125.
    weights = training_weights(CANDIDATES_N, PROPENSITY_N, 10)
    np.testing.assert_allclose(weights, np.array([0.625, 2.5, 2.5, 0.5]) / 1.53125)
    # Capped at 2: a mean of 1.28125.
    capped = training_weights(CANDIDATES_N, PROPENSITY_N, 2)
    np.testing.assert_allclose(capped, np.array([0.625, 2, 2, 0.5]) / 1.28125)


@given(given_examples())
def test_a_uniform_log_has_equal_weights_and_the_mean_is_one(examples: Examples) -> None:
    size_n = examples.candidates_n
    np.testing.assert_allclose(training_weights(size_n, 1 / size_n, 10), 1.0)
    known_n = np.nan_to_num(examples.propensity_n, nan=0.3)
    assert training_weights(size_n, known_n, 5).mean() == pytest.approx(1.0)


def test_one_tiny_propensity_does_not_take_all_weight() -> None:
    weights = training_weights(np.full(100, 4), np.array([1e-12, *[0.25] * 99]), 10)
    assert weights[0] == pytest.approx(10 / 1.09)


def test_best_of_several_trials_is_named_as_such() -> None:
    assert selection_note(1) == ""
    assert selection_note(4).startswith("the best of 4 trials on these examples, and so too high")
