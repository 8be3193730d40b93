import numpy as np

from artsel_ray.evaluation.diagnostics import overlap_warnings, weight_warnings


def test_equal_weights_pass() -> None:
    assert weight_warnings(np.ones(100), np.full(100, 0.5)) == []


def test_few_effective_examples_are_told() -> None:
    # (100 + 9,999 · 0.001)² / (100² + …) = 1.2; the example without a propensity is not counted.
    weight_n = np.array([100.0, *[0.001] * 9_999, 0])
    logging_n = np.array([*[0.5] * 10_000, np.nan])
    assert weight_warnings(weight_n, logging_n) == [
        "the weights rest on 1 of 10,000 examples; do not trust this number"
    ]
    assert weight_warnings(np.zeros(3), np.ones(3))[0].startswith("the weights rest on 0 of 3")


def test_one_heavy_example_is_told() -> None:
    # 125 of 1,125 is 11 %; Kish's size is 1,125² / (125² + 1,000) = 76.
    weight_n = np.array([125.0, *[1.0] * 1_000])
    assert weight_warnings(weight_n, np.ones(1_001)) == ["one example has 11% of all weight; do not trust this number"]


def test_a_mean_weight_off_one_is_told() -> None:
    assert overlap_warnings(np.array([0.9, 1.1]), np.ones(2)) == []
    (said,) = overlap_warnings(np.array([0.1, 0.2, 0.0]), np.array([1.0, 1.0, np.nan]))
    assert said.startswith("the mean weight is 0.15 where 1 is expected")
