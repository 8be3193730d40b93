"""Validates the images of a catalog before anything relies on them: each is fetched and decoded once, on Ray."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import ray

from artsel_ray.data.images import MAX_PIXELS, UNREADABLE_FILE, UnusableError, decode, fetch, locate
from artsel_ray.runtime.ray_cluster import start_ray

# Images of one task, images that it decodes at once, and the pixels to which it resizes them.
_TASK_IMAGES, _THREADS, _RESIZE_TO_PIXELS = 256, 4, 1024
_PROGRESS_SECONDS = 5.0
_RETRY_WAITS_SECONDS = (1.0, 4.0)


class ImageResult(NamedTuple):
    """One image's location, or why it is unusable."""

    location: str
    """Where the image is; as in the data if it is unusable."""
    fault: str
    """Empty if the image is usable."""


def validate_images(uris: list[str], folder: str) -> list[ImageResult]:
    """Returns each image's location and fault, in the order given.

    Args:
        uris: image URIs or paths from the data.
        folder: base of relative paths.
    """
    start_ray()
    task = ray.remote(_validate_all)
    tasks = [task.remote(uris[start : start + _TASK_IMAGES], folder) for start in range(0, len(uris), _TASK_IMAGES)]
    results: list[ImageResult] = []
    printed = time.monotonic()
    for each in tasks:
        done: list[ImageResult] = ray.get(each)
        results += done
        if time.monotonic() - printed > _PROGRESS_SECONDS:
            printed = time.monotonic()
            print(f"images: {len(results):,} of {len(uris):,} validated", flush=True)
    unusable = sum(result.fault != "" for result in results)
    if unusable:
        print(f"images: {unusable:,} of {len(uris):,} are unusable", flush=True)
    return results


def _validate_all(uris: list[str], folder: str) -> list[ImageResult]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_validate, folder), uris))


def _validate(folder: str, uri: str) -> ImageResult:
    for wait_seconds in (*_RETRY_WAITS_SECONDS, None):
        try:
            location = locate(uri, folder)
            decode(fetch(location), MAX_PIXELS, _RESIZE_TO_PIXELS)
            return ImageResult(location, "")
        except UnusableError as error:
            fault = str(error)
        # Only an unreadable file is tried again: the storage may fail for a moment.
        if wait_seconds is None or fault != UNREADABLE_FILE:
            break
        time.sleep(wait_seconds)
    return ImageResult(uri, fault)
