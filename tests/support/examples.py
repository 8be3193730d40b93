"""Random examples for property tests."""

import numpy as np
from hypothesis import strategies as st

from artsel_ray.evaluation.examples import Examples


@st.composite
def given_examples(draw: st.DrawFn) -> Examples:
    size_n = np.array(draw(st.lists(st.integers(1, 40), min_size=1, max_size=40)))
    position_n = np.array([draw(st.integers(0, int(size) - 1)) for size in size_n])
    user_n = np.unique([draw(st.integers(0, 9)) for _ in size_n], return_inverse=True)[1]
    propensity_n = np.array([draw(st.sampled_from([np.nan, 0.05, 0.5, 1.0])) for _ in size_n])
    return Examples(user_n, position_n, size_n, propensity_n)
