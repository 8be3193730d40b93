"""Files of images that the data names: only below folders that the operator named, and each within a deadline.

Whatever goes wrong with one is an `UnusableError`, whose reason says nothing about files elsewhere.
"""

import errno
import queue
import threading
import time
from collections.abc import Sequence

import pyarrow.fs as pafs

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.locations import below, is_uri
from artsel_ray.s3 import open_file

MAX_BYTES = 64 * 2**20
FETCH_SECONDS = 60.0
# A failure that took longer is the storage's, which is then left alone for a while.
_SLOW_SECONDS, _AVOIDED_SECONDS = 5.0, 600.0

OUTSIDE = "not below the artworks' folder or --image-root"
MISSING_FILE = "no file there"
UNREADABLE_FILE = "the file cannot be read"
TRANSIENT = "transient: the storage did not give the file this time"
"""The one reason that may pass; all others are for good."""
SETTINGS = "a URI with credentials or settings, which are not taken from data"
TOO_MANY_BYTES = f"a file of more than {MAX_BYTES // 2**20} MiB"

# A name that no file can have, and a request that the storage will refuse again.
_WRONG_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR)
_REFUSED = ("ACCESS_DENIED", "HTTP status 400", "HTTP status 403", "HTTP status 404")

_avoided_until: dict[str, float] = {}
"""By store, until when it is not asked again, by `time.monotonic`."""


class UnusableError(Exception):
    """An image is unusable; the message says why."""


def locate(uri: str, roots: Sequence[str]) -> str:
    """Returns the location of an image that the data names by a URI, a path, or a path relative to the first root.

    The location has the settings of its root; what the data says of a storage is not used.

    Args:
        roots: folders that the operator named; everything below them may be read.
    """
    # An endpoint from the data would receive requests signed with the environment's credentials.
    if "?" in uri and (is_uri(uri) or is_uri(roots[0])):
        raise UnusableError(SETTINGS)
    try:
        location = below(uri, roots[0], roots)
    except Exception:  # noqa: BLE001  # a name that no file can have
        raise UnusableError(UNREADABLE_FILE) from None
    if location is None:
        has_user = is_uri(uri) and "@" in uri.partition("://")[2].partition("/")[0]
        raise UnusableError(SETTINGS if has_user else OUTSIDE)
    return location


def fetch(location: str) -> bytes:
    """Returns the content of an image file at a location that `locate` returned, or raises within a minute."""
    store, started = "/".join(location.split("/")[:3]) if "://" in location else "", time.monotonic()
    if started < _avoided_until.get(store, 0.0):
        raise UnusableError(TRANSIENT)
    # A client of a storage retries for minutes, and nothing stops it: its thread is left behind.
    outcome: queue.SimpleQueue[bytes | UnusableError] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_outcome(location)), daemon=True).start()
    try:
        content = outcome.get(timeout=FETCH_SECONDS)
    except queue.Empty:
        content = UnusableError(TRANSIENT)
    if isinstance(content, UnusableError):
        if str(content) == TRANSIENT and time.monotonic() - started > _SLOW_SECONDS:
            _avoided_until[store] = time.monotonic() + _AVOIDED_SECONDS
        raise content
    return content


def _outcome(location: str) -> bytes | UnusableError:
    try:
        fs, path = storage.filesystem(location)
        info = fs.get_file_info(path)
        if info.type != pafs.FileType.File:
            return UnusableError(MISSING_FILE)
        if info.size > MAX_BYTES:
            return UnusableError(TOO_MANY_BYTES)
        with open_file(fs, path) as file:
            return bytes(file.read(MAX_BYTES))
    except (InputError, PermissionError, NotADirectoryError):
        return UnusableError(UNREADABLE_FILE)
    except OSError as error:
        is_for_good = error.errno in _WRONG_NAME or any(each in str(error) for each in _REFUSED)
        return UnusableError(UNREADABLE_FILE if is_for_good else TRANSIENT)
    except Exception:  # noqa: BLE001  # clients of storages raise whatever their libraries do
        return UnusableError(UNREADABLE_FILE)
