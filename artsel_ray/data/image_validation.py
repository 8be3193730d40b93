"""The pictures of a catalogue, looked at before anything relies on them: each is fetched and decoded, on Ray."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import ray

from artsel_ray.data.images import MAX_PIXELS, UNREADABLE_FILE, UnusableError, decode, fetch, locate
from artsel_ray.runtime.ray_cluster import start_ray

# Pictures of one task, and those that it holds decoded at once, scaled down to so many pixels.
_PICTURES, _THREADS, _PIXELS = 256, 4, 1024
_PROGRESS_SECONDS = 5.0
_WAITS = (1.0, 4.0)


def validate_images(uris: list[str], folder: str) -> list[tuple[str, str]]:
    """Returns where each picture is, and why it cannot be used, empty where it can.

    Args:
        uris: out of the data.
        folder: what relative paths begin at.
    """
    start_ray()
    task = ray.remote(_look_at_some)
    tasks = [task.remote(uris[start : start + _PICTURES], folder) for start in range(0, len(uris), _PICTURES)]
    looks: list[tuple[str, str]] = []
    shown = time.monotonic()
    for each in tasks:
        found: list[tuple[str, str]] = ray.get(each)
        looks += found
        if time.monotonic() - shown > _PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"pictures: {len(looks):,} of {len(uris):,} looked at", flush=True)
    unusable = sum(fault != "" for _, fault in looks)
    if unusable:
        print(f"pictures: {unusable:,} of {len(uris):,} cannot be used", flush=True)
    return looks


def _look_at_some(uris: list[str], folder: str) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_look, folder), uris))


def _look(folder: str, uri: str) -> tuple[str, str]:
    for wait in (*_WAITS, None):
        try:
            place = locate(uri, folder)
            decode(fetch(place), MAX_PIXELS, _PIXELS)
            return place, ""
        except UnusableError as error:
            fault = str(error)
        if wait is None or fault != UNREADABLE_FILE:  # which may be the storage's for a moment
            break
        time.sleep(wait)
    return uri, fault
