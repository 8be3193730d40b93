import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artsel_ray.simulate.drawing import draw
from artsel_ray.simulate.themes import THEMES


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=len(THEMES)))
def test_band_is_as_wide_as_the_weight_of_its_theme(weights: list[float]) -> None:
    mix = np.array(weights) / sum(weights)
    pixels = np.asarray(Image.open(io.BytesIO(draw(mix))))
    assert (pixels == pixels[:1]).all()
    shown, widths = np.unique(pixels[0], axis=0, return_counts=True)
    assert len(shown) <= len(mix)
    assert abs(widths.max() - mix.max() * pixels.shape[1]) <= 1
