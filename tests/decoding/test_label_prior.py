import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.decoding.label_prior import divide, prior

SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def test_prior_by_hand() -> None:
    # Geometric means of each number's probabilities over their own mean: (0.8 · 0.5)^½ and (0.2 · 0.5)^½, a ratio of 2.
    found = prior([np.array([0.8, 0.2]), np.array([0.5, 0.5])])
    assert found == pytest.approx([2**0.5, 2**-0.5])
    # 0.8 to 0.2 is 4 to 1, and half of that once the preference for the first number is divided out.
    assert divide(np.array([0.8, 0.2]), found.tolist()) == pytest.approx([2 / 3, 1 / 3])


@settings(deadline=None)
@given(SEEDS)
def test_prior_is_estimated_and_divided_out_exactly(rng: np.random.Generator) -> None:
    # Beliefs about m contents times a preference for numbers, over all cyclic permutations.
    m = int(rng.integers(2, 7))
    belief, preference = rng.dirichlet(np.ones(m)) + 0.01, rng.dirichlet(np.ones(m)) + 0.01
    orders = [np.roll(np.arange(m), shift) for shift in range(m)]
    shown = [belief[order] * preference / (belief[order] * preference).sum() for order in orders]
    found = prior(shown)
    assert found / found.sum() == pytest.approx(preference / preference.sum())
    for order, each in zip(orders, shown, strict=True):
        assert divide(each, found.tolist()) == pytest.approx(belief[order] / belief.sum())


@settings(deadline=None)
@given(SEEDS)
def test_distributions_may_have_different_lengths(rng: np.random.Generator) -> None:
    shapes = [np.ones(int(rng.integers(1, 9))) for _ in range(int(rng.integers(1, 9)))]
    found = prior([each / each.sum() for each in shapes])
    # A model without a preference has none for any number of options.
    assert found == pytest.approx(np.ones(max(map(len, shapes))))
    divided = divide(rng.dirichlet(np.ones(12)), found.tolist())
    assert divided.sum() == pytest.approx(1)
    assert (divided >= 0).all()


@settings(deadline=None)
@given(SEEDS)
def test_prior_is_exact_where_titles_differ_in_their_number_of_candidates(rng: np.random.Generator) -> None:
    preference = rng.dirichlet(np.ones(5)) + 0.05
    shown = []
    for m in (3, 5, 3, 2):
        belief = rng.dirichlet(np.ones(m)) + 0.01
        orders = [np.roll(belief, shift) * preference[:m] for shift in range(m)]
        shown += [each / each.sum() for each in orders]
    found = prior(shown)
    assert found == pytest.approx(preference / np.exp(np.log(preference).mean()))
    # Five equal options stay equal once the preference is divided out.
    assert divide(preference / preference.sum(), found.tolist()) == pytest.approx(np.full(5, 0.2))


def test_numbers_beyond_the_prior_count_as_its_mean() -> None:
    assert divide(np.full(3, 1 / 3), [4.0, 0.25]) == pytest.approx([0.25 / 5.25, 4 / 5.25, 1 / 5.25])


def test_a_probability_of_zero_gives_a_finite_prior() -> None:
    assert np.isfinite(prior([np.array([1.0, 0.0])])).all()
