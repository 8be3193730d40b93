"""Describes the images of artworks in words."""

from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.command_line import run

if __name__ == "__main__":
    run(CaptionConfig, "artsel_ray.caption.job:caption")
