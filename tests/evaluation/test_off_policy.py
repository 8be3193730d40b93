from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from artsel_ray.evaluation.metrics import LOG_METRICS
from artsel_ray.evaluation.off_policy import (
    Log,
    Terms,
    direct_method,
    effective_sample_size,
    importance_weights,
    ips,
    overlap_warnings,
    selection_warnings,
    snips,
    weight_warnings,
)
from benchmarks import open_bandit
from benchmarks.coverage import coverage


def value(terms: Terms) -> float:
    """Returns the estimate; NaN if the denominators sum to zero."""
    total = float(terms.denominator_n.sum())
    return float(terms.numerator_n.sum()) / total if total else float("nan")


SIZES = arrays(np.int64, st.integers(1, 50), elements=st.integers(1, 60))


def test_uniform_logging_by_hand() -> None:
    # Hits among 2 and among 4 candidates, a miss among 2, a miss among 4: weights 2, 4, 0, 0.
    hit, logging = np.array([1.0, 1, 0, 0]), np.array([1 / 2, 1 / 4, 1 / 2, 1 / 4])
    assert value(ips(hit, logging)) == pytest.approx(6 / 4)
    assert value(snips(hit, logging)) == pytest.approx(6 / 12)
    # (2 + 4)² / (4 + 16) = 36 / 20
    assert effective_sample_size(importance_weights(hit, logging)) == pytest.approx(1.8)


def test_logged_propensities_by_hand() -> None:
    # weights 1/0.8 = 1.25, 1/0.1 = 10; the third has no propensity and leaves both sums.
    hit, logging = np.array([1.0, 1, 1, 0]), np.array([0.8, 0.1, np.nan, 0.5])
    assert value(ips(hit, logging)) == pytest.approx(11.25 / 3)
    assert value(snips(hit, logging)) == pytest.approx(11.25 / (1.25 + 10 + 2))


def test_nothing_known_is_not_a_number() -> None:
    assert np.isnan(value(ips(np.ones(2), np.full(2, np.nan))))
    assert effective_sample_size(np.zeros(3)) == 0.0


@settings(deadline=None)
@given(SIZES)
def test_perfect_predictor(size_n: np.ndarray) -> None:
    ones = np.ones(len(size_n))
    assert value(ips(ones, 1 / size_n)) == pytest.approx(size_n.mean())
    assert value(snips(ones, 1 / size_n)) == pytest.approx(1.0)


@settings(deadline=None)
@given(SIZES)
def test_uniform_draw_has_ips_one(size_n: np.ndarray) -> None:
    assert value(ips(1 / size_n, 1 / size_n)) == pytest.approx(1.0)


@settings(deadline=None)
@given(SIZES, st.randoms(use_true_random=False))
def test_bounds(size_n: np.ndarray, random: Random) -> None:
    hit = np.array([float(random.random() < 0.5) for _ in size_n])
    assert 0 <= value(snips(hit, 1 / size_n)) <= 1 + 1e-12
    assert 0 <= value(ips(hit, 1 / size_n)) <= size_n.max() + 1e-9
    # Kish's size is at most the number of examples with weight.
    assert effective_sample_size(importance_weights(hit, 1 / size_n)) <= hit.sum() + 1e-9


def test_ips_is_unbiased_for_a_logged_bandit() -> None:
    # Logging shows a with π0, reward 1 with p(a). The policy that always plays 2 earns p(2) = 0.3.
    generator = np.random.default_rng(0)
    shown, liked = np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.1, 0.3])
    a = generator.choice(3, p=shown, size=200_000)
    reward = generator.random(len(a)) < liked[a]
    played = (a == 2) * reward
    # Standard deviation of one term: sqrt(0.3 / 0.1 - 0.09) = 1.7, of the mean 0.0038; four of these.
    assert value(ips(played.astype(float), shown[a])) == pytest.approx(0.3, abs=0.016)


def log_of(reward: list[float], action: list[int], logging: list[float], policy: np.ndarray, model: np.ndarray) -> Log:
    rows, shown = np.arange(len(reward)), np.array(action)
    expected = (policy * model).sum(axis=1)
    return Log(np.array(reward, float), np.array(logging), policy[rows, shown], model[rows, shown], expected)


def estimates(log: Log, max_weight: float = np.inf) -> dict[str, float]:
    found: dict[str, float] = {}
    for metric in LOG_METRICS:
        found[metric.name] = value(metric.terms(log, max_weight)) + (found[metric.plus] if metric.plus else 0.0)
    return found


# Six impressions of three actions. What `obp.ope` 0.5.7 says of them (InverseProbabilityWeighting,
# SelfNormalizedInverseProbabilityWeighting, DirectMethod, DoublyRobust, SelfNormalizedDoublyRobust; lambda_=2 clips).
OBP = log_of(
    [1, 0, 1, 0, 1, 1],
    [0, 1, 2, 0, 1, 2],
    [0.5, 0.25, 0.125, 0.8, 0.05, 0.4],
    np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0, 1, 0], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]]),
    np.array([[0.6, 0.2, 0.3], [0.1, 0.4, 0.2], [0.5, 0.5, 0.5], [0.2, 0.9, 0.1], [0.3, 0.25, 0.6], [0.7, 0.1, 0.4]]),
)


def test_agrees_with_the_open_bandit_pipeline() -> None:
    found = estimates(OBP)
    assert [found[name] for name in ("ips", "snips", "dm", "dr", "sndr")] == pytest.approx(
        [2.5722222222222224, 0.8282647584973167, 0.5008333333333334, 1.9808333333333332, 0.9773986285032797], rel=1e-12
    )
    clipped = estimates(OBP, max_weight=2)
    assert [clipped[name] for name in ("ips", "dr")] == pytest.approx(
        [1.038888888888889, 0.9608333333333334], rel=1e-12
    )


@pytest.mark.parametrize("reward", [1.0, 10.0, -1.0])
def test_constant_rewards_of_the_logging_policy_itself(reward: float) -> None:
    # VowpalWabbit/estimators, tests/test_bandits.py: estimate_1_from_1s, 10_from_10s, negative_constant.
    log = log_of([reward] * 10, [0] * 10, [1.0] * 10, np.ones((10, 1)), np.zeros((10, 1)))
    assert [estimates(log)[name] for name in ("ips", "snips", "dr", "sndr")] == pytest.approx([reward] * 4)


def test_one_impression() -> None:
    # VowpalWabbit/estimators, tests/test_bandits_ips.py and test_bandits_snips.py: p_log 0.3, r 1, p_pred 0.6.
    log = Log(np.ones(1), np.array([0.3]), np.array([0.6]), np.zeros(1), np.zeros(1))
    assert (estimates(log)["ips"], estimates(log)["snips"]) == (2.0, 1.0)


@pytest.mark.parametrize("reward", [1.0, 10.0])
def test_simple_convergence(reward: float) -> None:
    # VowpalWabbit/estimators, tests/test_bandits.py: simple_convergence, within 0.75 r and 0.85 r.
    policy = np.tile([0.8, 0.2], (10_000, 1))
    log = log_of([reward, 0] * 5_000, [0, 1] * 5_000, [0.5] * 10_000, policy, np.zeros((10_000, 2)))
    assert all(0.75 * reward <= estimates(log)[name] <= 0.85 * reward for name in ("ips", "snips", "dr", "sndr"))


def test_no_rewards_and_none_expected_is_zero() -> None:
    # st-tech/zr-obp, tests/ope/test_dr_estimators.py: "policy value must be 0".
    none = np.zeros((6, 3))
    assert set(estimates(Log(none[:, 0], OBP.logging_n, OBP.target_n, none[:, 0], none[:, 0])).values()) == {0.0}


LOGS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def drawn(rng: np.random.Generator) -> Log:
    n, m = int(rng.integers(1, 60)), int(rng.integers(2, 9))
    logging, policy = (rng.dirichlet(np.ones(m), size=n) for _ in range(2))
    action = np.array([rng.choice(m, p=each) for each in logging])
    log = logging[np.arange(n), action]
    return log_of(rng.integers(2, size=n).tolist(), action.tolist(), log.tolist(), policy, rng.random((n, m)))


@settings(deadline=None)
@given(LOGS)
def test_bounds_of_a_log(rng: np.random.Generator) -> None:
    # st-tech/zr-obp: SNIPW is 1-bounded (test_ipw_estimators.py) and SNDR 2-bounded (test_dr_estimators.py), also with
    # propensities that are too small.
    log = drawn(rng)
    found = estimates(Log(log.reward_n, log.logging_n**3, log.target_n, log.predicted_n, log.expected_n))
    assert -1e-9 <= found["snips"] <= 1 + 1e-9
    assert -1 - 1e-9 <= found["sndr"] <= 2 + 1e-9


@settings(deadline=None)
@given(LOGS)
def test_dr_is_the_direct_method_without_weights_and_ips_without_a_model(rng: np.random.Generator) -> None:
    # st-tech/zr-obp, tests/ope/test_dr_estimators.py: the limits of Switch-DR and of DR with shrinkage.
    log = drawn(rng)
    assert estimates(log, max_weight=1e-12)["dr"] == pytest.approx(estimates(log)["dm"])
    none_n = np.zeros_like(log.reward_n)
    blind = estimates(Log(log.reward_n, log.logging_n, log.target_n, none_n, none_n))
    assert (blind["dr"], blind["sndr"]) == pytest.approx((blind["ips"], blind["snips"]))


def test_dr_is_unbiased_with_a_wrong_model_and_narrower_with_a_right_one() -> None:
    rng = np.random.default_rng(0)
    shown, liked, policy = np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.1, 0.3]), np.array([0.1, 0.2, 0.7])
    found: dict[str, list[float]] = {"ips": [], "right": [], "wrong": [], "dm": []}
    for _ in range(400):
        action = rng.choice(3, p=shown, size=500)
        reward = (rng.random(500) < liked[action]).astype(float)
        for name, model in (("right", liked), ("wrong", np.array([0.9, 0.9, 0.0]))):
            tiled = np.tile(policy, (500, 1)), np.tile(model, (500, 1))
            each = estimates(log_of(reward.tolist(), action.tolist(), shown[action].tolist(), *tiled))
            found[name].append(each["dr"])
        found["ips"].append(each["ips"])
        found["dm"].append(each["dm"])
    # The truth is 0.28. Standard errors of a mean of 400: 0.004 at most.
    assert [np.mean(found[name]) for name in ("ips", "right", "wrong")] == pytest.approx([0.28] * 3, abs=0.015)
    assert np.mean(found["dm"]) == pytest.approx(0.27)
    assert np.std(found["right"]) < 0.9 * np.std(found["ips"])


@settings(deadline=None)
@given(LOGS)
def test_on_engaged_examples_the_corrected_direct_method_is_ips(rng: np.random.Generator) -> None:
    # The identity of the module's docstring, for any model, propensities and policy.
    m = int(rng.integers(2, 9))
    policy, shown, model = (rng.dirichlet(np.ones(m)) for _ in range(3))
    truth = int(rng.integers(m))
    corrected = (policy * model / shown).sum() + (policy * (np.eye(m)[truth] - model) / shown).sum()
    assert corrected == pytest.approx(value(ips(policy[[truth]], shown[[truth]])))


def test_direct_method_leaves_out_what_the_model_or_the_log_lacks() -> None:
    nan = np.nan
    assert value(direct_method(np.array([1.0, nan, 3.0, 2.0]), np.array([0.5, 0.5, nan, 0.5]))) == 1.5


def test_clipped_weights_by_hand() -> None:
    # 1/0.8 = 1.25 and 1/0.1 = 10, clipped to 4; a miss of 1/0.5 = 2; a miss of 1/0.05 = 20, clipped to 4.
    hit, logging = np.array([1.0, 1, 0, 0]), np.array([0.8, 0.1, 0.5, 0.05])
    assert value(ips(hit, logging, 4)) == pytest.approx(5.25 / 4)
    assert value(snips(hit, logging, 4)) == pytest.approx(5.25 / 11.25)


@pytest.mark.slow
def test_open_bandit_logs_give_the_other_policys_value_or_a_warning() -> None:
    folder = open_bandit.fetch()
    for campaign in open_bandit.CAMPAIGNS:
        random, bts = (open_bandit.read(folder, policy, campaign) for policy in ("random", "bts"))
        uniform_pa = np.full((3, random.items), 1 / random.items)
        found = open_bandit.evaluate(random, open_bandit.thompson(folder, campaign, 0), open_bandit.item_rewards(bts))
        row = found.policies["model"]
        assert row.warnings == []
        for name in ("ips", "snips", "dr", "sndr"):
            low, high = row.metrics[name].low, row.metrics[name].high
            assert low is not None
            assert high is not None
            assert low <= bts.reward_n.mean() <= high
        back = open_bandit.evaluate(bts, uniform_pa, open_bandit.item_rewards(random), 200).policies["model"]
        assert bool(back.warnings) == (campaign == "women")
    assert back.warnings[0].startswith("the weights rest on 2 of 10,000 examples")


@pytest.mark.slow
def test_intervals_on_the_log_of_an_exploring_run_cover_another_policys_value() -> None:
    for share, error, _ in coverage(worlds=100, users=500, how="softmax").values():
        assert share >= 0.88  # of 95 % intervals, in all but one of a thousand such tests
        assert abs(error) < 0.03


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
