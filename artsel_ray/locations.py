"""Paths and URIs as people type them or data names them: what a URI may hold, and what is inside of what."""

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from urllib.parse import parse_qsl, unquote, urlsplit

from artsel_ray.errors import InputError

# The schemes of storages, and those by which other tools call the same storage. pyarrow knows more, which reach any
# host: `hf`, `fsspec+http`.
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")
_ALIASES = {"s3a": "s3", "s3n": "s3", "az": "abfs", "adl": "abfs", "wasb": "abfs", "wasbs": "abfss"}
_SAME_STORE = {"gcs": "gs", "abfss": "abfs"}
_BUCKETS = ("s3", "gs", "gcs")

# What a URI may say of its storage. None of it is a secret, so that URIs can be printed and written to config.json.
OPTIONS = (
    "endpoint_override", "scheme", "region", "allow_bucket_creation", "retry_limit_seconds", "project_id",
    "credential_kind", "enable_tls", "blob_storage_authority", "dfs_storage_authority", "replication", "user",
    "buffer_size", "default_block_size",
)  # fmt: skip
_OPTION_VALUE = re.compile(r"[\w.:\[\]-]*")
_AUTHORITY = re.compile(r"([\w.-]+@)?([\w.-]*|\[[\da-fA-F:.]+\])(:\d{1,5})?")

# `s3:/bucket`, `s3:bucket`, `s3//bucket`; no drive letter.
_HALF_TYPED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(:/*|[;,]?//+)")
_ON_HUB = re.compile(r"(hf|huggingface):/*(models/)?|https?://(www\.)?(huggingface\.co|hf\.co)/", re.IGNORECASE)


def is_uri(text: str) -> bool:
    """Returns whether a text is a URI rather than a plain local path."""
    return "://" in text or text.startswith("file:/")


def check_secrets(uri: str) -> None:
    """Checks that a URI holds no credentials: neither before its host nor among its options.

    Raises:
        InputError: which shows nothing of the URI but its scheme.
    """
    before, mark, rest = uri.partition("://")
    if not mark or "/" in before:
        return
    which = f"{before}:// URI" if before in SCHEMES else "URI"
    path, _, query = rest.partition("?")
    authority = path.partition("/")[0]
    # Other stores name a user or a container there (`abfs://container@account…`).
    has_user = "@" in authority.removeprefix("anonymous@") or ":" in authority
    if not _AUTHORITY.fullmatch(authority) or (before in _BUCKETS and has_user):
        raise InputError(
            f"leave the credentials out of the {which}; set them in the environment instead. The name of a bucket or "
            "host has letters, digits, dots and hyphens"
        )
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS or not _OPTION_VALUE.fullmatch(value):
            raise InputError(
                f"the {which} has another option after '?' than {', '.join(OPTIONS)}, or a strange value; leave it "
                "out: signatures and keys belong in the environment"
            )


def check_scheme(name: str, flag: str) -> None:
    """Checks that a flag's path or URI, if it looks like one with a scheme, has one that is spelled right.

    A local name with a colon is fine (`run:1`, `C:/data`), unless it begins like a storage's URI and is not there.

    Raises:
        InputError: with the right spelling.
    """
    try:
        check_secrets(name)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None
    shown = _without_password(name)
    head, has_scheme, rest = shown.partition("://")
    if (has_scheme and head in SCHEMES) or name.startswith("file:/"):
        if head in _BUCKETS and not rest.partition("/")[0]:
            raise InputError(f"{flag} is {shown}, which names no bucket; write {head}://BUCKET/PATH")
        return
    if (on_hub := _ON_HUB.match(shown)) and not os.path.exists(name):
        hub_id = shown[on_hub.end() :] or "OWNER/NAME"
        raise InputError(
            f"{flag} is {shown}, an address of the Hugging Face hub, which is no storage; a model is named by its hub "
            f"id alone, such as {hub_id}, and tables are copied to a storage first"
        )
    half = _HALF_TYPED.match(name)
    scheme = (head if has_scheme else half[1] if half else "").strip().lower()
    known = scheme if scheme in SCHEMES else _ALIASES.get(scheme)
    if not has_scheme and (half is None or os.path.exists(name) or not (known or half[2].startswith(":/"))):
        return
    known = known or next(iter(get_close_matches(scheme, SCHEMES, 1, 0.5)), None)
    rest = rest if has_scheme else shown[half.end() :] if half else ""
    right = f"{known}://{'/' * (known == 'file')}{rest}" if known else "s3://BUCKET/PATH, gs://BUCKET/PATH or a path"
    local = "" if has_scheme else f", or ./{shown} for a local path"
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
    scheme, has_scheme, rest = uri.partition("?")[0].partition("://")
    if has_scheme and not uri.startswith("file:/"):
        host, _, key = rest.partition("/")
        normal = f"{_SAME_STORE.get(scheme, scheme)}://{host}/" + posixpath.normpath(f"/{key}").lstrip("/")
        return normal, normal
    return local_path(uri), os.path.realpath(local_path(uri))


def below(name: str, base: str, roots: Sequence[str]) -> str | None:
    """Returns the location of a name out of data if it is below a folder that the operator named, else None.

    The location has that folder's own settings. On a local disk, links count as where they lead.

    Args:
        name: a URI without a query, an absolute path, or a path relative to `base`.
        roots: the operator's folders.
    """
    if not is_uri(name) and not name.startswith("/"):
        folder = local_path(base) if _is_local(base) else base.partition("?")[0]
        name = f"{folder.rstrip('/')}/{name}"
    is_below = _path_below if _is_local(name) else _key_below
    found = (is_below(name, root) for root in roots if _is_local(root) == _is_local(name))
    return next((each for each in found if each is not None), None)


def store_of(uri: str) -> str:
    """Returns what a URI says before its path, and its options: which storage it is on; empty for a local path."""
    before, mark, rest = uri.partition("://")
    path, _, query = rest.partition("?")
    return f"{before}://{path.partition('/')[0]}?{query}" if mark and before != "file" else ""


def _is_local(name: str) -> bool:
    return name.startswith("file:/") or "://" not in name or name.startswith("/")


def _path_below(name: str, root: str) -> str | None:
    location = local_path(name)
    inside = os.path.realpath(location).startswith(os.path.realpath(local_path(root)).rstrip("/") + "/")
    return location if inside else None


def _key_below(name: str, root: str) -> str | None:
    folder, mark, query = root.partition("?")
    folder = folder.rstrip("/") + "/"
    # An object store takes `..` as it is; HDFS, and some clients and proxies, follow it.
    inside = name.startswith(folder) and ".." not in name[len(folder) :].replace("\\", "/").split("/")
    return name + mark + query if inside else None


def local_path(name: str) -> str:
    """Returns the absolute path of a local path or `file:` URI; an `InputError` if that names another machine."""
    if not name.startswith("file:/"):
        return os.path.abspath(os.path.expanduser(name))
    parts = urlsplit(name)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{name}: a file URI names no other machine; write file:///path")
    return os.path.abspath(unquote(parts.path))
