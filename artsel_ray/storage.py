"""Objects on any filesystem that pyarrow knows, by URI: a local path, `s3://…`, `gs://…`, `hdfs://…`.

An object is written whole or not at all: one put on object stores, and on a local disk, where a half-written
file would be visible, a temporary file that replaces the old one. Readers trust a manifest, written last.
"""

import contextlib
import hashlib
import json
import os
import uuid
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from artsel_ray import schema
from artsel_ray.errors import InputError, first_line
from artsel_ray.retries import open_file

MANIFEST = "_manifest.json"


def join(uri: str, *names: str) -> str:
    """Appends path segments to a URI, before its query where it has one (`s3://b/p?endpoint_override=…`)."""
    path, mark, query = uri.partition("?") if is_uri(uri) else (uri, "", "")
    return "/".join([path.rstrip("/"), *names]) + mark + query


def is_uri(text: str) -> bool:
    """Tells a URI from a plain local path."""
    return "://" in text or text.startswith("file:/")


@lru_cache(maxsize=64)
def _connect(root: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(root)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"cannot use {root}: {first_line(error)}") from None


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Returns the filesystem and the path on it.

    A `file:` URI's path is unquoted; other URIs' names are taken as they are.

    Raises:
        InputError: for a scheme that pyarrow does not know, or settings that it refuses.
    """
    if not is_uri(uri):
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    path, _, query = uri.partition("?")
    if path.startswith("file:"):
        return pafs.LocalFileSystem(), _local_path(path)
    scheme, _, rest = path.partition("://")
    host, _, key = rest.partition("/")
    user, at, _ = host.rpartition("@")
    # Other stores name a user or a container there (`abfs://container@account…`).
    if at and (scheme == "s3" or ":" in user):
        raise InputError(f"leave the credentials out of the {scheme}:// URI; set them in the environment instead")
    fs, base = _connect(f"{scheme}://{host}" + (f"?{query}" if query else ""))
    return fs, _path(scheme, base, key)


def _path(scheme: str, base: str, key: str) -> str:
    """Returns the path as pyarrow gives it: absolute on HDFS, `bucket/key` on an object store."""
    path = f"{base.strip('/')}/{key}".strip("/")
    return f"/{path}" if scheme in ("hdfs", "viewfs") else path


def _local_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{uri}: a file URI names no other machine; write file:///path")
    return os.path.abspath(unquote(parts.path))


def list_files(uri: str, suffix: str = ".parquet") -> list[str]:
    """Returns the URIs of the files below `uri` (or `uri` itself, if it is a file), sorted by name.

    Names that start with `_` or `.` are passed over, with all below them; so are folders named `invalid`, which
    jobs write beside their rows.

    Raises:
        InputError: if nothing is there, or the storage does not answer.
    """
    files = find_files(uri, suffix)
    if not files:
        raise InputError(f"{uri}: no {suffix} file there; check the path")
    return files


def find_files(uri: str, suffix: str = ".parquet") -> list[str]:
    """Like `list_files`, but an absent or empty folder is an empty list."""
    fs, path = filesystem(uri)
    try:
        info = fs.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [uri]
        entries = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise InputError(f"cannot list {uri}: {first_line(error)}") from None
    names = []
    for entry in entries:
        name = entry.path[len(path) :].lstrip("/")
        *folders, last = name.split("/")
        hidden = "rejected" in folders or any(part.startswith(("_", ".")) for part in (*folders, last))
        if entry.type == pafs.FileType.File and name.endswith(suffix) and not hidden:
            names.append(name)
    # The names in a `file:` URI are quoted, as `filesystem` expects them.
    return [join(uri, quote(name) if uri.startswith("file:/") else name) for name in sorted(names)]


def describe(files: list[str], folder: str) -> str:
    """Returns a digest of the names below `folder`, the sizes and the times of files, given by their URIs.

    Raises:
        InputError: if the storage does not answer.
    """
    fs, _ = filesystem(folder)
    try:
        infos = fs.get_file_info([filesystem(file)[1] for file in files])
    except OSError as error:
        raise InputError(f"cannot reach {folder}: {first_line(error)}") from None
    return fingerprint(
        [[file.removeprefix(folder), info.size, info.mtime_ns] for file, info in zip(files, infos, strict=True)]
    )


def describe_files(uri: str, suffix: str = ".parquet") -> str:
    """Returns a digest of the names, sizes and times of the files below a URI, which `list_files` finds."""
    return describe(list_files(uri, suffix), uri)


def exists(uri: str) -> bool:
    """Tells whether an object or folder is there."""
    fs, path = filesystem(uri)
    try:
        return fs.get_file_info(path).type != pafs.FileType.NotFound
    except OSError as error:
        raise InputError(f"cannot reach {uri}: {first_line(error)}") from None


def write_object(uri: str, content: bytes | pa.Buffer) -> None:
    """Writes one object whole: a reader sees the old object or the new one, never a part.

    Raises:
        InputError: if the storage refuses or does not answer.
    """
    fs, path = filesystem(uri)
    try:
        if isinstance(fs, pafs.LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.{uuid.uuid4().hex}")
            try:
                with open(temporary, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, path)
            except OSError:  # a full disk must not stay full of halves
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        else:
            with fs.open_output_stream(path) as stream:
                stream.write(content)
    except OSError as error:
        raise InputError(f"cannot write {uri}: {first_line(error)}") from None


def read_object(uri: str) -> bytes:
    """Returns an object's content.

    Raises:
        InputError: if it is absent or the storage does not answer.
    """
    fs, path = filesystem(uri)
    try:
        with open_file(fs, path) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot read {uri}: {first_line(error)}") from None


def delete(uri: str) -> None:
    """Deletes an object, or a folder and all below it; an absent one is no error."""
    fs, path = filesystem(uri)
    try:
        kind = fs.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            fs.delete_dir(path)
        elif kind == pafs.FileType.File:
            fs.delete_file(path)
    except OSError as error:
        raise InputError(f"cannot delete {uri}: {first_line(error)}") from None


def write_json(uri: str, value: Any) -> None:
    """Writes a JSON object, indented and with its keys in the order given."""
    write_object(uri, to_json(value))


def to_json(value: Any) -> bytes:
    """Returns what `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_json(uri: str) -> Any:
    """Reads a JSON object.

    Raises:
        InputError: if it is absent or is not JSON.
    """
    try:
        return json.loads(read_object(uri))
    except ValueError as error:
        raise InputError(f"{uri} is not JSON: {error}") from None


def write_table(uri: str, table: pa.Table, name: str, metadata: dict[str, str] | None = None) -> None:
    """Writes one Parquet object with the named table's schema; absent nullable columns are null, as when read."""
    target = schema.TABLES[name].with_metadata(metadata or {})
    for field in target:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(target.names).cast(target), sink, compression="zstd")
    write_object(uri, sink.getvalue())


def open_parquet(uri: str) -> pq.ParquetFile:
    """Opens a Parquet file for reading in parts.

    Raises:
        InputError: if it is absent, or is not a whole Parquet file.
    """
    fs, path = filesystem(uri)
    try:
        return pq.ParquetFile(open_file(fs, path))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {uri} as Parquet: {first_line(error)}") from None


def fingerprint(*parts: Any) -> str:
    """Returns 32 hexadecimal digits that depend on every part; parts are anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def write_manifest(uri: str, content: dict[str, Any]) -> None:
    """Publishes what was written below `uri`: the last object of a run, and what its readers trust."""
    write_json(join(uri, MANIFEST), content)


def read_manifest(uri: str) -> dict[str, Any] | None:
    """Returns the manifest, or None where a run has not finished."""
    manifest = join(uri, MANIFEST)
    return read_json(manifest) if exists(manifest) else None
