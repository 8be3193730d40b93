"""Describes the pictures of artworks in words."""

from collections.abc import Callable

from artsel_ray.config import CaptionConfig, run


def job() -> Callable[[CaptionConfig], None]:
    from artsel_ray.caption.job import caption

    return caption


if __name__ == "__main__":
    run(CaptionConfig, job)
