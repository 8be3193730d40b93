import numpy as np
import pytest

from artsel_ray.simulate import world as w
from artsel_ray.simulate.artworks import CaptionStyle
from artsel_ray.simulate.histories import genre_themes

RNG = np.random.default_rng(0)
TITLES = [["Comedy"], ["War", "Drama"], [], ["Musical"]]
WORLD = w.make_world(genre_themes(TITLES * 10, 12), (2, 9), 0.5, [CaptionStyle(24, 0.3)] * 40, seed=0)
PAIRS = RNG.integers(0, 40, 3000)
TASTE = RNG.dirichlet(np.full(12, 0.3), 3000)
BEHAVIOR = w.Behavior(taste_strength=2.0, exploration=0.2)


def test_number_of_candidates_stays_within_its_bounds() -> None:
    assert WORLD.counts_x.min() >= 2
    assert WORLD.counts_x.max() <= 9
    assert [len(captions) for captions in WORLD.captions] == WORLD.counts_x.tolist()
    assert all(len(set(captions)) == len(captions) for captions in WORLD.captions)
    assert WORLD.first_x.tolist() == [sum(WORLD.counts_x[:x]) for x in range(40)]
    np.testing.assert_allclose(WORLD.mix_xmt.sum(axis=2)[WORLD.mask_xm], 1)


def test_match_equals_the_formula() -> None:
    got = w.match(WORLD, PAIRS[:1], TASTE[:1])[0]
    count = WORLD.counts_x[PAIRS[0]]
    raw = [12 * sum(TASTE[0] * WORLD.mix_xmt[PAIRS[0], m]) for m in range(count)]
    np.testing.assert_allclose(got[:count], np.array(raw) - np.mean(raw))
    assert (got[count:] == 0).all()


def test_propensities_are_a_distribution_with_a_minimum() -> None:
    policy = w.propensities(WORLD, PAIRS, w.match(WORLD, PAIRS, TASTE), BEHAVIOR)
    mask = WORLD.mask_xm[PAIRS]
    np.testing.assert_allclose(policy.sum(axis=1), 1)
    assert (policy[~mask] == 0).all()
    assert (policy[mask] >= np.broadcast_to(0.2 / WORLD.counts_x[PAIRS][:, None], mask.shape)[mask] - 1e-12).all()
    assert policy[mask].std() > 0.01


def test_shown_artworks_and_engagement_follow_their_probabilities() -> None:
    shown = w.show(WORLD, PAIRS, TASTE, BEHAVIOR, np.random.default_rng(2))
    assert (shown.positions_n < WORLD.counts_x[PAIRS]).all()
    assert (shown.propensities_n == shown.policy_nm[np.arange(3000), shown.positions_n]).all()
    # Sums over all pairs differ from their expectations by less than 4 standard deviations.
    hits_m = (shown.positions_n[:, None] == np.arange(9)).sum(axis=0)
    spread_m = np.sqrt((shown.policy_nm * (1 - shown.policy_nm)).sum(axis=0))
    assert (np.abs(hits_m - shown.policy_nm.sum(axis=0)) <= 4 * spread_m).all()
    p = shown.engagement_nm[np.arange(3000), shown.positions_n]
    assert abs(shown.engaged_n.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_engagement_increases_with_the_match() -> None:
    matches = w.match(WORLD, PAIRS, TASTE)
    behavior = w.calibrate(WORLD, PAIRS, TASTE, BEHAVIOR, 0.3)
    engaged = w.engagement(WORLD, PAIRS, matches, behavior)
    policy = w.propensities(WORLD, PAIRS, matches, behavior)
    assert (policy * engaged).sum(axis=1).mean() == pytest.approx(0.3, abs=1e-6)
    mask = WORLD.mask_xm[PAIRS]
    assert np.corrcoef(matches[mask], engaged[mask])[0, 1] > 0.5
    utility = behavior.bias + 2.0 * matches + WORLD.appeal_xm[PAIRS]
    np.testing.assert_allclose(engaged[mask], 1 / (1 + np.exp(-utility[mask])))


def test_best_possible_predictors_reach_the_expected_metrics() -> None:
    matches = w.match(WORLD, PAIRS, TASTE)
    policy = w.propensities(WORLD, PAIRS, matches, BEHAVIOR)
    engaged_probability = w.engagement(WORLD, PAIRS, matches, BEHAVIOR)
    counts = WORLD.counts_x[PAIRS]
    rng, rows = np.random.default_rng(1), np.arange(len(PAIRS))
    accuracy, ips, logged, expected = [], [], [], []
    for _ in range(60):
        shown = (rng.random((len(rows), 1)) >= np.cumsum(policy, axis=1)).sum(axis=1).clip(max=counts - 1)
        engaged = rng.random(len(rows)) < engaged_probability[rows, shown]
        hit = (policy * engaged_probability).argmax(axis=1)[engaged] == shown[engaged]
        logged_hit = engaged_probability.argmax(axis=1)[engaged] == shown[engaged]
        accuracy.append(hit.mean())
        ips.append((hit * counts[engaged]).mean())
        logged.append((logged_hit / policy[rows, shown][engaged]).mean())
        expected.append(w.best_possible(policy[engaged], engaged_probability[engaged], counts[engaged]).means())
    for name, seen in (("accuracy", accuracy), ("ips", ips), ("ips_logged", logged)):
        error = np.std(seen) / np.sqrt(len(seen))
        assert np.mean(seen) == pytest.approx(np.mean([each[name] for each in expected]), abs=4 * error)


def test_best_of_two_parts_is_their_sum() -> None:
    one, two = w.Best(2, 1.0, 3.0, 4.0, 0.5), w.Best(1, 0.5, 1.0, 1.0, 0.25)
    assert (one + two) == w.Best(3, 1.5, 4.0, 5.0, 0.75)
    assert (one + two).means()["accuracy"] == 0.5
