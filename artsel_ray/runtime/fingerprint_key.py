"""A run's key of fingerprints, in a file of its own: without it, what a fingerprint stands for cannot be guessed."""

import hashlib
import secrets

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runtime.shards import done_shards

FILE = "_fingerprint_key.json"
_IN_MANIFEST = {"fingerprints": "keyed"}


def run_key(output: str, previous: str | None) -> bytes:
    """Returns a claimed run's key, made at its start; the empty key if a version without keys has begun the run.

    A run has the key of the run before it, if that has one, so that equal fingerprints stay equal.

    Raises:
        InputError: as `finished_key`, or if the storage does not answer.
    """
    uri = storage.join(output, FILE)
    if not storage.exists(uri):
        if done_shards(output):
            return finished_key(output)
        key = (finished_key(previous) if previous else b"") or secrets.token_bytes(32)
        storage.create(uri, storage.to_json({"key": key.hex()}), is_private=True)
    return _read(uri)


def finished_key(output: str) -> bytes:
    """Returns a finished run's key; the empty key for a run of a version without keys.

    Raises:
        InputError: if the run has a key and its file is not there.
    """
    if not is_keyed(output):
        return b""
    uri = storage.join(output, FILE)
    if not storage.exists(uri):
        problem = f"{output} has no {FILE}, without which none of its predictions can be reused"
        raise InputError(f"{problem}; put the file back, or name another run")
    return _read(uri)


def is_keyed(output: str) -> bool:
    """Returns whether a finished run's fingerprints have a key."""
    return _IN_MANIFEST.items() <= (storage.read_manifest(output) or {}).items()


def in_manifest(output: str) -> dict[str, str]:
    """Returns what the manifest of this run says about its fingerprints."""
    return _IN_MANIFEST if storage.exists(storage.join(output, FILE)) else {}


def with_key(fingerprints: list[str], key: bytes) -> list[str]:
    """Returns fingerprints under a key; the empty key leaves them as they are."""
    if not key:
        return fingerprints
    return [hashlib.blake2b(each.encode(), key=key, digest_size=16).hexdigest() for each in fingerprints]


def _read(uri: str) -> bytes:
    content = storage.read_json(uri)
    try:
        key = bytes.fromhex(content["key"])
    except (ValueError, TypeError, KeyError):
        key = b""
    if not 16 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise InputError(f"{uri} does not hold a key of fingerprints; put the run's own file back")
    return key
