import numpy as np

from artsel_ray.evaluation.diagnostics import overlap_warnings, selection_warnings, weight_warnings


def test_equal_weights_pass() -> None:
    assert weight_warnings(np.ones(100), np.full(100, 0.5)) == []


def test_few_effective_examples_are_warned_about() -> None:
    # (100 + 9,999 · 0.001)² / (100² + …) = 1.2; the example without a propensity is not counted.
    weight_n = np.array([100.0, *[0.001] * 9_999, 0])
    logging_n = np.array([*[0.5] * 10_000, np.nan])
    assert weight_warnings(weight_n, logging_n) == [
        "the weights rest on 1 of 10,000 examples; do not trust this number"
    ]
    assert weight_warnings(np.zeros(3), np.ones(3))[0].startswith("the weights rest on 0 of 3")


def test_one_heavy_example_is_warned_about() -> None:
    # 125 of 1,125 is 11 %; Kish's size is 1,125² / (125² + 1,000) = 76.
    weight_n = np.array([125.0, *[1.0] * 1_000])
    assert weight_warnings(weight_n, np.ones(1_001)) == ["one example has 11% of all weight; do not trust this number"]


def test_mean_weight_off_one_is_warned_about() -> None:
    assert overlap_warnings(np.array([0.9, 1.1]), np.ones(2)) == []
    (warning,) = overlap_warnings(np.array([0.1, 0.2, 0.0]), np.array([1.0, 1.0, np.nan]))
    assert warning.startswith("the mean weight is 0.15 where 1 is expected")


def test_log_of_engagements_alone_is_warned_about() -> None:
    (warning,) = selection_warnings(np.ones(5), np.zeros(3))
    assert warning.startswith("every impression of the log is engaged with")


def test_selection_by_reward_is_warned_about() -> None:
    half = np.repeat([0.0, 1.0], 500)
    assert selection_warnings(half, np.empty(0)) == []
    assert selection_warnings(half, half) == []
    # Rates of 0.5 and 0.1: pooled 0.3, standard error sqrt(0.3 · 0.7 · (1/1000 + 1/1000)) = 0.0205, 19.5 of them.
    (warning,) = selection_warnings(half, np.repeat([0.0, 1.0], [900, 100]))
    assert warning.startswith("50.0% of the impressions with predictions are engaged with, 10.0% of the 1,000 others")
    # 0.5 and 0.4: pooled 0.45, standard error 0.0222, 4.5 of them.
    assert selection_warnings(half, np.repeat([0.0, 1.0], [600, 400])) == []
