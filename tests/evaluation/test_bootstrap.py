import numpy as np
import pytest

from artsel_ray.evaluation.bootstrap import Estimate, Measurement, bootstrap, resampled_sums, twice_resampled_sums
from artsel_ray.evaluation.off_policy import Terms, snips


def world(users: int, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    user_n = np.concatenate([np.arange(users), generator.integers(users, size=examples - users)])
    size_n = generator.integers(2, 30, size=examples)
    skill_u = generator.beta(2, 3, size=users)
    return user_n, size_n, (generator.random(examples) < skill_u[user_n]).astype(float)


def test_agrees_with_a_loop_on_the_same_draws() -> None:
    user_n, size_n, hit_n = world(40, 300, 1)
    estimate = bootstrap([("snips", snips(hit_n, 1 / size_n))], user_n, 50, seed=3)["snips"]
    generator = np.random.default_rng(3)
    expected = []
    for _ in range(50):
        drawn = generator.integers(40, size=40)
        rows = np.concatenate([np.flatnonzero(user_n == user) for user in drawn])
        expected.append((hit_n[rows] * size_n[rows]).sum() / size_n[rows].sum())
    np.testing.assert_allclose(estimate.resampled_b, expected, rtol=1e-12)


@pytest.mark.parametrize("chunk_draws", [1, 100, 950, 10**7])
def test_chunks_change_nothing(chunk_draws: int) -> None:
    sums_us = np.random.default_rng(0).random((95, 4))
    all_at_once = resampled_sums(sums_us, 30, seed=5)
    assert all_at_once.shape == (30, 4)
    np.testing.assert_allclose(resampled_sums(sums_us, 30, 5, chunk_draws), all_at_once, rtol=1e-12)


def test_order_of_examples_changes_nothing() -> None:
    user_n, size_n, hit_n = world(30, 200, 2)
    order = np.random.default_rng(9).permutation(200)
    first = bootstrap([("s", snips(hit_n, 1 / size_n))], user_n, 100, 0)["s"]
    second = bootstrap([("s", snips(hit_n[order], 1 / size_n[order]))], user_n[order], 100, 0)["s"]
    np.testing.assert_allclose(first.resampled_b, second.resampled_b, rtol=1e-12)
    assert first.value == pytest.approx(second.value, rel=1e-12)


def test_one_user_gives_a_point() -> None:
    estimate = bootstrap([("a", Terms(np.array([1.0, 0]), np.ones(2)))], np.zeros(2, np.int64), 20, 0)["a"]
    assert estimate.interval() == (0.5, 0.5)


def test_users_not_examples_are_resampled() -> None:
    # 20 users with 50 equal examples each: of accuracy 0.5, the standard error is 0.5/√20 = 0.112, not 0.5/√1000.
    user_n = np.repeat(np.arange(20), 50)
    hit_n = (user_n % 2).astype(float)
    estimate = bootstrap([("a", Terms(hit_n, np.ones(1000)))], user_n, 4000, 0)["a"]
    assert estimate.resampled_b.std() == pytest.approx(0.5 / np.sqrt(20), rel=0.05)


def test_interval_has_its_nominal_coverage() -> None:
    # 400 worlds of 150 users, 1 to 6 examples each; the users' skills are drawn, with mean 0.4 whatever their
    # number of examples. SNIPS of hits with 1/m then estimates 0.4. Nominal 95 %; binomial standard error 1.1 %;
    # the percentile interval is known to be a little short at this size.
    covered = 0
    for seed in range(400):
        generator = np.random.default_rng(1000 + seed)
        user_n = np.repeat(np.arange(150), generator.integers(1, 7, size=150))
        size_n = generator.integers(2, 30, size=len(user_n))
        hit_n = (generator.random(len(user_n)) < generator.beta(2, 3, size=150)[user_n]).astype(float)
        low, high = bootstrap([("s", snips(hit_n, 1 / size_n))], user_n, 500, seed)["s"].interval()
        covered += low <= 0.4 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_percent_is_paired() -> None:
    user_n, _, hit_n = world(50, 400, 4)
    ones = np.ones(400)
    terms = [("model", Terms(hit_n * 0.5, ones)), ("reference", Terms(hit_n, ones))]
    estimates = bootstrap(terms, user_n, 200, 0)
    relative = estimates["model"].percent_over(estimates["reference"])
    # Half of the reference in every resample, so that the interval has no width.
    assert (relative.value, *relative.interval()) == pytest.approx((-50, -50, -50))


def test_sums_and_differences_are_paired() -> None:
    user_n, _, hit_n = world(50, 400, 4)
    ones = np.ones(400)
    found = bootstrap([("model", Terms(hit_n + 0.25, ones)), ("reference", Terms(hit_n, ones))], user_n, 200, 0)
    difference = found["model"].minus(found["reference"])
    # A quarter more in every resample, so that the interval has no width.
    assert (difference.value, *difference.interval()) == pytest.approx((0.25, 0.25, 0.25))
    np.testing.assert_allclose(difference.plus(found["reference"]).resampled_b, found["model"].resampled_b)


def test_undefined_resamples_are_left_out() -> None:
    estimate = Estimate(0.5, np.array([0.5, np.nan, 0.5]))
    assert estimate.interval() == (0.5, 0.5)
    assert np.isnan(Estimate(np.nan, np.full(2, np.nan)).interval()).all()


def test_percent_over_zero_is_not_finite() -> None:
    zero = Estimate(0.0, np.zeros(3))
    assert not np.isfinite(Estimate(0.5, np.full(3, 0.5)).percent_over(zero).value)
    assert np.isnan(zero.percent_over(zero).value)


def test_measurement_has_none_for_numbers_that_are_not_finite() -> None:
    assert Estimate(0.5, np.array([0.25, 0.25])).measurement() == Measurement(0.5, 0.25, 0.25)
    assert Estimate(np.inf, np.full(2, np.nan)).measurement() == Measurement(None, None, None)


def test_users_and_titles_agree_with_a_loop_on_the_same_draws() -> None:
    user_n, size_n, hit_n = world(40, 300, 1)
    title_n = np.concatenate([np.arange(25), np.random.default_rng(2).integers(25, size=275)])
    estimate = bootstrap([("snips", snips(hit_n, 1 / size_n))], user_n, 30, 3, title_n)["snips"]
    generator = np.random.default_rng(3)
    drawn_users, drawn_titles = generator.integers(40, size=(30, 40)), generator.integers(25, size=(30, 25))
    expected = []
    for users, titles in zip(drawn_users, drawn_titles, strict=True):
        weight_n = np.array([(users == u).sum() * (titles == t).sum() for u, t in zip(user_n, title_n, strict=True)])
        expected.append((weight_n * hit_n * size_n).sum() / (weight_n * size_n).sum())
    np.testing.assert_allclose(estimate.resampled_b, expected, rtol=1e-12)
    assert estimate.value == pytest.approx((hit_n * size_n).sum() / size_n.sum())


@pytest.mark.parametrize("chunk_draws", [1, 10**7])
def test_chunks_of_users_and_titles_have_the_same_shape(chunk_draws: int) -> None:
    number_n = np.arange(9) % 3
    sums_bs = twice_resampled_sums(np.ones((9, 2)), number_n, number_n, 6, 0, chunk_draws)
    assert sums_bs.shape == (6, 2)
    assert (sums_bs[:, 0] == sums_bs[:, 1]).all()


def test_differences_between_titles_widen_the_interval_only_over_titles() -> None:
    # 200 users see all of 20 titles; a title's examples all agree.
    user_n, title_n = np.repeat(np.arange(200), 20), np.tile(np.arange(20), 200)
    terms = [("a", Terms((title_n < 8).astype(float), np.ones(len(title_n))))]
    low, high = bootstrap(terms, user_n, 1000, 0)["a"].interval()
    assert (low, high) == pytest.approx((0.4, 0.4))
    low, high = bootstrap(terms, user_n, 1000, 0, title_n)["a"].interval()
    # The standard error of a share of 0.4 of 20 titles is 0.11.
    assert high - low == pytest.approx(2 * 1.96 * 0.11, rel=0.15)


def test_share_of_all_or_none_has_wilsons_interval() -> None:
    user_n, ones_n = np.arange(300), np.ones(300)
    for value, expected in ((1.0, (0.98736, 1.0)), (0.0, (0.0, 0.01264))):
        estimate = bootstrap([("a", Terms(ones_n * value, ones_n))], user_n, 50, 0)["a"]
        found = estimate.measurement(is_share=True)
        assert found.value == value
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-5)
        # What is no share, such as the IPS of the policy that logged, can be a point.
        assert estimate.measurement() == Measurement(value, value, value)
    # Of 300 users but 10 titles, 10 count.
    both = bootstrap([("a", Terms(ones_n, ones_n))], user_n, 50, 0, user_n % 10)["a"].measurement(is_share=True)
    assert both.low == pytest.approx(10 / (10 + 1.959964**2))


def test_interval_over_users_and_titles_covers_other_titles() -> None:
    # Worlds of 40 titles of different quality, mean 0.5: over users alone, intervals cover it in about 77 % of them.
    covered = np.zeros(2)
    for seed in range(200):
        generator = np.random.default_rng(seed)
        user_n, title_n = np.repeat(np.arange(200), 4), generator.integers(40, size=800)
        title_n[:40] = np.arange(40)
        terms = Terms((generator.random(800) < generator.beta(10, 10, size=40)[title_n]).astype(float), np.ones(800))
        for index, titles in enumerate((None, title_n)):
            low, high = bootstrap([("a", terms)], user_n, 300, seed, titles)["a"].interval()
            covered[index] += low <= 0.5 <= high
    assert covered[0] / 200 < 0.88
    assert 0.92 <= covered[1] / 200 <= 1
