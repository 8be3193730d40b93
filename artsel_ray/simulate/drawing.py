"""Images of simulated artworks: bands in the colors of their themes."""

import colorsys
import io

import numpy as np
from PIL import Image

from artsel_ray.simulate.themes import THEMES

_SIDE = 64
_COLORS = np.array([colorsys.hsv_to_rgb(index / len(THEMES), 0.8, 0.9) for index in range(len(THEMES))])


def draw(mix: np.ndarray) -> bytes:
    """Returns a PNG of vertical bands, each as wide as the weight of its theme.

    Args:
        mix: [T] weights of the themes, which sum to 1.
    """
    ends = np.rint(np.cumsum(mix) * _SIDE).astype(int)
    row = np.repeat(_COLORS[: len(mix)], np.diff(ends, prepend=0), axis=0)
    pixels = np.broadcast_to((row * 255).astype(np.uint8), (_SIDE, _SIDE, 3))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
