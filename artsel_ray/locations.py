"""Paths and URIs as people type them: half-typed schemes, and outputs inside of inputs."""

import os
import posixpath
import re
from collections.abc import Mapping
from difflib import get_close_matches
from urllib.parse import unquote, urlsplit

from artsel_ray.errors import InputError

# Schemes that pyarrow knows, and those by which other tools call the same storage.
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "hf", "file")
_ALIASES = {"s3a": "s3", "s3n": "s3", "az": "abfs", "adl": "abfs", "wasb": "abfs", "wasbs": "abfss"}
_SAME_STORE = {"gcs": "gs", "abfss": "abfs"}

# `s3:/bucket`, `s3:bucket`, `s3//bucket`; no drive letter.
_HALF_TYPED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(:/*|[;,]?//+)")


def check_scheme(name: str, flag: str) -> None:
    """Checks that a flag's path or URI, if it looks like one with a scheme, has one that is spelled right.

    A local name with a colon is fine (`run:1`, `C:/data`), unless it begins like a storage's URI and is not there.

    Raises:
        InputError: with the right spelling.
    """
    shown = _without_password(name)
    head, is_uri, rest = shown.partition("://")
    if (is_uri and (head in SCHEMES or head.startswith("fsspec+"))) or name.startswith("file:/"):
        if head in ("s3", "gs", "gcs") and not rest.partition("/")[0]:
            raise InputError(f"{flag} is {shown}, which names no bucket; write {head}://BUCKET/PATH")
        return
    half = _HALF_TYPED.match(name)
    scheme = (head if is_uri else half[1] if half else "").strip().lower()
    known = scheme if scheme in SCHEMES else _ALIASES.get(scheme)
    if not is_uri and (half is None or os.path.exists(name) or not (known or half[2].startswith(":/"))):
        return
    known = known or next(iter(get_close_matches(scheme, SCHEMES, 1, 0.5)), None)
    rest = rest if is_uri else shown[half.end() :] if half else ""
    right = f"{known}://{'/' * (known == 'file')}{rest}" if known else "s3://BUCKET/PATH, gs://BUCKET/PATH or a path"
    local = "" if is_uri else f", or ./{shown} for a local path"
    raise InputError(f"{flag} is {shown}, which is no storage's URI; write {right}{local}")


def check_output(output: str, inputs: Mapping[str, list[str]]) -> None:
    """Checks that an output and all inputs, by flag, are apart: what a job writes would else be read the next time.

    Raises:
        InputError: if one is another one's folder or below it.
    """
    for flag, locations in inputs.items():
        for location in locations:
            given, other = _without_password(output), _without_password(location)
            if is_within(output, location):
                raise InputError(f"--output {given} is in the folder of {flag}, {other}; give one outside of it")
            if is_within(location, output):
                raise InputError(f"{flag} {other} is in the folder of --output, {given}; give one next to it")


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*:[^/@]*@", "//", uri)


def is_within(uri: str, folder: str) -> bool:
    """Returns whether a path or URI is a folder or below it, also by links, `..` and other spellings."""
    # With links followed and without: a reader of the folder follows them.
    pairs = zip(_normal(uri), _normal(folder), strict=True)
    return any(inner == outer or inner.startswith(outer.rstrip("/") + "/") for inner, outer in pairs)


def _normal(uri: str) -> tuple[str, str]:
    scheme, is_uri, rest = uri.partition("?")[0].partition("://")
    if uri.startswith("file:/"):
        path = unquote(urlsplit(uri).path)
    elif is_uri:
        host, _, key = rest.partition("/")
        normal = f"{_SAME_STORE.get(scheme, scheme)}://{host}/" + posixpath.normpath(f"/{key}").lstrip("/")
        return normal, normal
    else:
        path = os.path.expanduser(uri)
    return os.path.abspath(path), os.path.realpath(path)
