"""Objects on a storage, by URI: a local path, `s3://…`, `gs://…`, `abfs://…`, `hdfs://…`.

A reader sees an object complete or not at all: object stores put it in one request, and on a local disk, where a
partial file would be visible, a temporary file replaces the old one. Readers trust a manifest, which is written last.
"""

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from artsel_ray import listing, s3, schema
from artsel_ray.errors import InputError, first_line
from artsel_ray.listing import INVALID_FOLDER as INVALID_FOLDER
from artsel_ray.locations import SCHEMES, check_secrets, local_path
from artsel_ray.locations import is_uri as is_uri
from artsel_ray.s3 import open_file, put_if_absent

MANIFEST = "_manifest.json"


def join(uri: str, *names: str) -> str:
    """Appends path segments to a URI, before its query where it has one (`s3://b/p?endpoint_override=…`)."""
    path, mark, query = uri.partition("?") if is_uri(uri) else (uri, "", "")
    return "/".join([path.rstrip("/"), *names]) + mark + query


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Returns the filesystem of a URI and the path on it.

    Raises:
        InputError: for a scheme that is no storage's, credentials, or options that pyarrow refuses.
    """
    if not is_uri(uri) or uri.startswith("file:"):
        return pafs.LocalFileSystem(), local_path(uri)
    path, _, query = uri.partition("?")
    scheme, _, rest = path.partition("://")
    host, _, key = rest.partition("/")
    check_secrets(uri)
    if scheme not in SCHEMES:
        raise InputError(f"cannot use {scheme}://{host}: no storage's URI; it begins with {', '.join(SCHEMES)}")
    fs, base = _connect(f"{scheme}://{host}" + (f"?{query}" if query else ""))
    return fs, _path(scheme, base, key)


@lru_cache(maxsize=64)
def _connect(root: str) -> tuple[pafs.FileSystem, str]:
    try:
        return pafs.FileSystem.from_uri(root)
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"cannot use {root}: {first_line(error)}") from None


def _path(scheme: str, base: str, key: str) -> str:
    """Returns the path as pyarrow takes it: absolute on HDFS, `bucket/key` on an object store."""
    path = f"{base.strip('/')}/{key}".strip("/")
    return f"/{path}" if scheme in ("hdfs", "viewfs") else path


@contextlib.contextmanager
def _as_input_error(action: str, uri: str, form: str = "") -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot {action} {uri}{form}: {reason(error, uri)}") from None


def reason(error: Exception, uri: str) -> str:
    """Returns in one line why an object could not be read or written."""
    return s3.reason(error, *filesystem(uri), query=uri.partition("?")[2])


def list_files(uri: str) -> list[str]:
    """Returns the URIs of a table's files below `uri` (or `uri` itself, if it is a file), sorted by name.

    These are all Parquet files, by name or by content. Skips names that start with `_` or `.`, and folders named
    `rejected`, with everything below them.

    Raises:
        InputError: if nothing is there, it is not a folder of plain Parquet files, or the storage does not answer.
    """
    fs, path = filesystem(uri)
    with _as_input_error("list", uri):
        is_file = fs.get_file_info(path).type == pafs.FileType.File
        names = [] if is_file else listing.table_files(fs, path, uri)
    if not is_file and not names:
        raise InputError(f"{uri}: no {listing.SUFFIX} file there; check the path")
    return [uri] if is_file else _joined(uri, names)


def find_files(uri: str, suffix: str = listing.SUFFIX) -> list[str]:
    """Returns the URIs of the files with a suffix below `uri`, as `list_files`; none for an absent or empty folder."""
    fs, path = filesystem(uri)
    with _as_input_error("list", uri):
        if fs.get_file_info(path).type == pafs.FileType.File:
            return [uri]
        names = listing.names_below(fs, path)
    return _joined(uri, [name for name in names if name.endswith(suffix) and not listing.is_hidden(name)])


def _joined(uri: str, names: list[str]) -> list[str]:
    # The names in a `file:` URI are quoted, as `filesystem` expects them.
    return [join(uri, quote(name) if uri.startswith("file:/") else name) for name in names]


def folder(uri: str) -> str:
    """Returns the folder of a table: `uri` itself, or the folder that the file `uri` is in."""
    fs, path = filesystem(uri)
    with _as_input_error("reach", uri):
        if fs.get_file_info(path).type != pafs.FileType.File:
            return uri
    head, mark, query = uri.partition("?") if is_uri(uri) else (uri, "", "")
    return head.rpartition("/")[0] + mark + query


def exists(uri: str) -> bool:
    """Returns whether an object or folder is there."""
    fs, path = filesystem(uri)
    with _as_input_error("reach", uri):
        return fs.get_file_info(path).type != pafs.FileType.NotFound


def file_infos(files: list[str]) -> list[pafs.FileInfo]:
    """Returns the sizes and times of files of one storage; an `InputError` if it does not answer."""
    if not files:
        return []
    with _as_input_error("reach", files[0]):
        found: list[pafs.FileInfo] = filesystem(files[0])[0].get_file_info([filesystem(file)[1] for file in files])
    return found


def describe(files: list[str], folder: str) -> str:
    """Returns a digest of files' names below `folder`, sizes and times; an `InputError` if there is no answer."""
    infos = zip(files, file_infos(files), strict=True)
    return fingerprint([[file.removeprefix(folder), info.size, info.mtime_ns] for file, info in infos])


def describe_files(uri: str) -> str:
    """Returns `describe` of the files that `list_files` finds."""
    return describe(list_files(uri), uri)


def fingerprint(*parts: Any) -> str:
    """Returns 32 hexadecimal digits that depend on every part; parts are anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_object(uri: str) -> bytes:
    """Returns an object's content.

    Raises:
        InputError: if it is absent or the storage does not answer.
    """
    fs, path = filesystem(uri)
    with _as_input_error("read", uri), open_file(fs, path) as file:
        return file.read()


def write_object(uri: str, content: bytes | pa.Buffer, is_private: bool = False) -> None:
    """Writes one object: a reader sees the old object or the new one, never a part.

    Where files have modes, a private one is for its owner alone.

    Raises:
        InputError: if the storage refuses or does not answer.
    """
    fs, path = filesystem(uri)
    with _as_input_error("write", uri):
        if isinstance(fs, pafs.LocalFileSystem):
            with _temporary_file(path, content, is_private) as temporary:
                os.replace(temporary, path)
        else:
            with fs.open_output_stream(path) as stream:
                stream.write(content)


def create(uri: str, content: bytes, is_private: bool = False) -> bool:
    """Writes one object if there is none, and returns whether it did; of several writers at once, one succeeds.

    Only local disks and S3 guarantee that: on other stores, writers that come at the same moment may all succeed.

    Raises:
        InputError: if the storage refuses or does not answer.
    """
    if exists(uri):
        return False
    fs, path = filesystem(uri)
    with _as_input_error("write", uri):
        if isinstance(fs, pafs.LocalFileSystem):
            return _create_local(path, content, is_private)
        if isinstance(fs, pafs.S3FileSystem):
            return put_if_absent(fs, path, content, query=uri.partition("?")[2])
    write_object(uri, content)
    return True


def _create_local(path: str, content: bytes, is_private: bool) -> bool:
    with _temporary_file(path, content, is_private) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a disk without hard links
            os.replace(temporary, path)
    return True


@contextlib.contextmanager
def _temporary_file(path: str, content: bytes | pa.Buffer, is_private: bool) -> Iterator[str]:
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{uuid.uuid4().hex}"
    mode = 0o600 if is_private else 0o666
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:  # a full disk must not stay full of partial files
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def delete(uri: str) -> None:
    """Deletes an object, or a folder and everything below it; an absent one is no error."""
    fs, path = filesystem(uri)
    with _as_input_error("delete", uri):
        kind = fs.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            fs.delete_dir(path)
        elif kind == pafs.FileType.File:
            fs.delete_file(path)


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
    except (ValueError, RecursionError) as error:
        raise InputError(f"{uri} is not JSON: {first_line(error)}; delete it, or write it again") from None


def write_table(uri: str, table: pa.Table, name: str, metadata: dict[str, str] | None = None) -> None:
    """Writes one Parquet object with the named table's schema; absent nullable columns become null."""
    target = schema.TABLES[name].with_metadata(metadata or {})
    for field in target:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(target.names).cast(target), sink, compression="zstd")
    write_object(uri, sink.getvalue())


def open_parquet(uri: str, **options: Any) -> pq.ParquetFile:
    """Opens a Parquet file for reading in parts; options are those of pyarrow.

    Raises:
        InputError: if it is absent, or is not a complete Parquet file.
    """
    fs, path = filesystem(uri)
    with _as_input_error("read", uri, " as Parquet"):
        # INT96 has nanoseconds of any year, which Arrow's own nanoseconds cannot hold.
        return pq.ParquetFile(open_file(fs, path), coerce_int96_timestamp_unit="us", **options)


def write_manifest(uri: str, content: dict[str, Any]) -> None:
    """Publishes what was written below `uri`: the last object of a run, and what its readers trust."""
    write_json(join(uri, MANIFEST), content)


def read_manifest(uri: str) -> dict[str, Any] | None:
    """Returns the manifest, or None where a run has not finished."""
    manifest = join(uri, MANIFEST)
    return read_json(manifest) if exists(manifest) else None
