"""Objects on a local disk, URIs, and errors in one line."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError


def test_join_keeps_the_query() -> None:
    assert storage.join("/a/b/", "c", "d.parquet") == "/a/b/c/d.parquet"
    assert (
        storage.join("s3://b/p?endpoint_override=x:1&scheme=http", "c")
        == "s3://b/p/c?endpoint_override=x:1&scheme=http"
    )


def test_files_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "sub/c.parquet", "_work/d.parquet", ".tmp.parquet", "e.txt"):
        storage.write_object(str(tmp_path / name), b"x")
    names = [file.removeprefix(f"{tmp_path}/") for file in storage.list_files(str(tmp_path))]
    assert names == ["a.parquet", "b.parquet", "sub/c.parquet"]
    assert storage.list_files(str(tmp_path / "a.parquet")) == [str(tmp_path / "a.parquet")]


def test_missing_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        storage.list_files(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="cannot read"):
        storage.read_object(str(tmp_path / "absent"))


def test_hidden_names_and_invalid_rows_are_skipped(tmp_path: Path) -> None:
    for name in (
        "a.parquet",
        "b/c.parquet",
        "_work/d.parquet",
        ".e.parquet",
        "rejected/a.parquet",
        "b/rejected/f.parquet",
    ):
        storage.write_object(str(tmp_path / name), b"")
    assert storage.find_files(str(tmp_path)) == [f"{tmp_path}/a.parquet", f"{tmp_path}/b/c.parquet"]
    assert storage.find_files(str(tmp_path / "rejected")) == [f"{tmp_path}/rejected/a.parquet"]


def test_descriptions_depend_on_name_size_and_time(tmp_path: Path) -> None:
    uri = str(tmp_path)
    storage.write_object(f"{uri}/a.parquet", b"one")
    digests = [storage.describe_files(uri)]
    assert storage.describe_files(uri) == digests[0]
    storage.write_object(f"{uri}/weights", b"not of this suffix")
    assert storage.describe_files(uri) == digests[0]
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    digests.append(storage.describe_files(uri))
    storage.write_object(f"{uri}/a.parquet", b"three")
    os.utime(tmp_path / "a.parquet", ns=(1, 1))
    digests.append(storage.describe_files(uri))
    (tmp_path / "a.parquet").rename(tmp_path / "b.parquet")
    digests.append(storage.describe_files(uri))
    assert len(set(digests)) == 4


def test_unreachable_bucket_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-print")
    uri = "s3://bucket/logs?endpoint_override=127.0.0.1:9&scheme=http"
    with pytest.raises(InputError) as caught:
        storage.list_files(uri)
    assert str(caught.value).startswith(f"cannot list {uri}: ")
    assert "\n" not in str(caught.value)
    assert "do-not-print" not in str(caught.value)


class Refusal(BaseHTTPRequestHandler):
    """Answers as S3 does: a GET with the code that the bucket's name says, a HEAD without a word."""

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        code = self.path.split("/")[1].split("-")[-1]
        self.answer(f"<Error><Code>{code}</Code><Message>Because.</Message></Error>".encode())

    def answer(self, body: bytes) -> None:
        self.send_response(400)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing_store() -> Iterator[str]:
    """The address of a server that refuses every request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "ExpiredToken",
            r"S3 answers ExpiredToken \(Because\.\); renew the keys: AWS_ACCESS_KEY_ID, .*AWS_SESSION_TOKEN",
        ),
        ("InvalidAccessKeyId", "InvalidAccessKeyId .*renew the keys"),
        ("AuthorizationHeaderMalformed", "AuthorizationHeaderMalformed .*set AWS_REGION"),
        ("NoSuchBucket", "NoSuchBucket .*check the bucket's name"),
        ("AccessDenied", "AccessDenied .*ask for permission to s3:ListBucket, s3:GetObject"),
        ("RequestTimeTooSkewed", "RequestTimeTooSkewed .*set the clock"),
        ("Teapot", "HTTP status 400.* Check keys, region, bucket and permission"),
    ],
)
def test_refusal_without_a_reason_is_asked_for_one(
    refusing_store: str, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-print")
    uri = f"s3://night-{code}/logs?endpoint_override={refusing_store}&scheme=http&region=us-east-1"
    for action, call in (("list", storage.list_files), ("read", storage.read_object), ("reach", storage.exists)):
        with pytest.raises(InputError, match=rf"^cannot {action} .*: .*{expected}") as caught:
            call(uri)
        assert "\n" not in str(caught.value)
        assert "do-not-print" not in str(caught.value)


def test_credentials_in_a_uri_are_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match="environment") as caught:
        storage.list_files("s3://key:secret@bucket/x")
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="environment") as caught:
        storage.list_files("abfs://c:secret@account.dfs.core.windows.net/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("head", ["file://", "file:", "file://localhost"])
def test_file_uris_are_local_paths(tmp_path: Path, head: str) -> None:
    folder = tmp_path / "a b%"
    uri = f"{head}{tmp_path}/a%20b%25"
    storage.write_object(storage.join(uri, "c.parquet"), b"x")
    assert (folder / "c.parquet").read_bytes() == b"x"
    (folder / "d %20?.parquet").write_bytes(b"y")
    assert [storage.read_object(file) for file in storage.list_files(uri)] == [b"x", b"y"]


def test_file_uri_of_another_machine_is_refused() -> None:
    with pytest.raises(InputError, match="no other machine"):
        storage.list_files("file://elsewhere/x")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("abfs://c@account.dfs.core.windows.net/x/y", "c/x/y"),
        ("abfs://c@account.dfs.core.windows.net", "c"),
        ("abfs://account.dfs.core.windows.net/c/x", "c/x"),
        ("gs://anonymous@b/p/q/", "b/p/q"),
        ("s3://b/p q?endpoint_override=127.0.0.1:9&scheme=http", "b/p q"),
    ],
)
def test_paths_are_as_the_store_takes_them(uri: str, path: str) -> None:
    assert storage.filesystem(uri)[1] == path


def test_paths_are_absolute_on_hdfs() -> None:
    assert [storage._path("hdfs", base, "data/x/") for base in ("", "/")] == ["/data/x"] * 2
    assert storage._path("hdfs", "/", "") == "/"


def test_unknown_scheme_is_one_line() -> None:
    with pytest.raises(InputError, match="cannot use ftp://host"):
        storage.list_files("ftp://host/x")


def test_broken_parquet_file_is_named(tmp_path: Path) -> None:
    complete = tmp_path / "complete.parquet"
    pq.write_table(pa.table({"a": [1]}), complete)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(complete.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"broken\.parquet as Parquet"):
        storage.open_parquet(str(broken))


def _overwrite_forever(path: str) -> None:
    for number in range(10**9):
        storage.write_object(path, str(number % 10).encode() * 2_000_000)


def test_killed_writer_leaves_the_old_object_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "object"
    for wait in (0.02, 0.05, 0.09):
        storage.write_object(str(path), b"0" * 2_000_000)
        writer = multiprocessing.get_context("fork").Process(target=_overwrite_forever, args=(str(path),))
        writer.start()
        time.sleep(wait)
        assert writer.pid
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        content = path.read_bytes()
        assert len(content) == 2_000_000
        assert len(set(content)) == 1


def test_table_keeps_its_metadata_and_schema(tmp_path: Path) -> None:
    rows = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": [1999], "synopsis": [None]})
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, rows, "titles", {"made": "here"})
    assert storage.open_parquet(uri).schema_arrow.metadata[b"made"] == b"here"
    assert read_table(uri, "titles").to_pylist() == rows.to_pylist()
    assert read_table(uri, "titles", ["name"]).column_names == ["name"]


def test_manifest_is_read_back_or_absent(tmp_path: Path) -> None:
    assert storage.read_manifest(str(tmp_path)) is None
    storage.write_manifest(str(tmp_path), {"parts": ["p"]})
    assert storage.read_manifest(str(tmp_path)) == {"parts": ["p"]}
    (tmp_path / "_manifest.json").write_text("{")
    for text in ("{", "[" * 200_000, '{"a":' * 200_000, "\xff", "1" * 5000):
        (tmp_path / "_manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match="is not JSON"):
            storage.read_manifest(str(tmp_path))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=3))


@given(JSON, JSON)
def test_fingerprints_are_equal_for_equal_parts_only(first: object, second: object) -> None:
    same = json.dumps(first) == json.dumps(second)
    assert (storage.fingerprint(first) == storage.fingerprint(second)) == same
    assert storage.fingerprint({"a": first, "b": second}) == storage.fingerprint({"b": second, "a": first})


def test_full_disk_is_one_line_and_leaves_the_old_object_and_no_partial_file(tmp_path: Path) -> None:
    target = str(tmp_path / "part.parquet")
    storage.write_object(target, b"old")
    code = (
        "import resource, signal, sys; from artsel_ray import storage; from artsel_ray.errors import InputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: storage.write_object(sys.argv[1], bytes(10_000))\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"cannot write .*part\.parquet: .*File too large\n", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]
    assert storage.read_object(target) == b"old"


def test_absent_nullable_columns_are_written_as_null(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.parquet")
    storage.write_table(uri, pa.table({"artwork_id": ["a"], "title_id": ["t"]}), "artworks")
    (row,) = read_table(uri, "artworks").to_pylist()
    assert row == {"artwork_id": "a", "title_id": "t", "caption": None, "image_uri": None, "asset_kind": None}
    with pytest.raises(KeyError, match="title_id"):
        storage.write_table(uri, pa.table({"artwork_id": ["a"]}), "artworks")


def test_one_of_many_writers_creates_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "new/config.json")
    monkeypatch.setattr(storage, "exists", lambda _: False)  # no writer sees another's object before it tries
    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(lambda writer: storage.create(target, b"%d" % writer), range(16)))
    (winner,) = [writer for writer, is_mine in enumerate(created) if is_mine]
    assert storage.read_object(target) == b"%d" % winner
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]


def test_create_keeps_an_existing_object(tmp_path: Path) -> None:
    target = str(tmp_path / "config.json")
    assert storage.create(target, b"first")
    assert not storage.create(target, b"second")
    assert storage.read_object(target) == b"first"


def test_create_works_on_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", link)
    assert storage.create(str(tmp_path / "config.json"), b"first")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]
