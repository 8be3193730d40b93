"""Images are read below the operator's folders alone, within a deadline, and whatever goes wrong is a reason."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray import storage
from artsel_ray.data import image_files
from artsel_ray.data.image_files import UnusableError, fetch, locate

PHOTO = (Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg").read_bytes()
PARTS = st.sampled_from(["..", "/", "file:", "//", "s3:", "%2e", "a", "?", "@", "~"])


def reason(uri: str, *roots: str) -> str:
    with pytest.raises(UnusableError) as error:
        fetch(locate(uri, roots))
    return str(error.value)


@pytest.fixture(autouse=True)
def _no_store_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_avoided_until", {})


def test_image_is_fetched_by_relative_path_absolute_path_and_uri(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(PHOTO)
    for uri in ("a b.jpg", str(tmp_path / "a b.jpg"), (tmp_path / "a b.jpg").as_uri(), "x/../a b.jpg"):
        for root in (str(tmp_path), tmp_path.as_uri()):
            assert fetch(locate(uri, [root])) == PHOTO


def test_image_on_s3_is_fetched_with_the_settings_of_its_root(bucket: str) -> None:
    storage.write_object(storage.join(bucket, "images", "a.jpg"), PHOTO)
    for uri in ("images/a.jpg", bucket.partition("?")[0] + "/images/a.jpg"):
        assert locate(uri, [bucket]) == storage.join(bucket, "images/a.jpg")
        assert fetch(locate(uri, [bucket])) == PHOTO
    assert reason("images/b.jpg", bucket) == image_files.MISSING_FILE


@pytest.mark.parametrize("exists", [True, False])
def test_files_outside_of_the_roots_are_refused_whether_they_exist_or_not(tmp_path: Path, exists: bool) -> None:
    root, private = tmp_path / "artworks", tmp_path / "private"
    for folder in (root, private, tmp_path / "artworks2"):
        folder.mkdir()
    if exists:
        (private / "a.jpg").write_bytes(PHOTO)
        (tmp_path / "artworks2/a.jpg").write_bytes(PHOTO)
    (root / "link").symlink_to(private)
    (root / "a.jpg").symlink_to(private / "a.jpg")
    names = (
        *("../private/a.jpg", "x/../../private/a.jpg", f"{private}/a.jpg", f"file://{private}/a.jpg", "link/a.jpg"),
        *(f"file:{root}/%2e%2e/private/a.jpg", f"{root}/../private/a.jpg", "a.jpg", f"{root}2/a.jpg", "..", ""),
        *("/proc/self/cwd/a.jpg", "../artworks2/a.jpg"),
    )
    assert {reason(name, str(root)) for name in names} == {image_files.OUTSIDE}
    if exists:
        assert fetch(locate("link/a.jpg", [str(root), str(private)])) == PHOTO
        assert fetch(locate(f"{private}/a.jpg", [str(root), private.as_uri()])) == PHOTO


def test_only_the_prefix_that_the_operator_named_is_read_on_a_store() -> None:
    root, query = "s3://ours/artworks", "?region=eu-west-1"
    for name in ("a.jpg", f"{root}/a.jpg"):
        assert locate(name, [root + query]) == f"{root}/a.jpg{query}"
    outside = (
        *("s3://other-tenant/artworks/a.jpg", "s3://ours/private/a.jpg", "s3://ours/artworks2/a.jpg", "../private/a"),
        *("s3://ours/artworks/../private/a.jpg", "/etc/passwd", "file:///etc/passwd", "gs://ours/artworks/a", "..\\x"),
    )
    assert {reason(uri, root + query) for uri in outside} == {image_files.OUTSIDE}
    assert locate("s3://more/a.jpg", [root, "s3://more"]) == "s3://more/a.jpg"
    container = "abfs://c@account.dfs.core.windows.net/artworks"
    assert locate(f"{container}/a.jpg", [container]) == f"{container}/a.jpg"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("nowhere.jpg", image_files.MISSING_FILE),
        ("folder", image_files.MISSING_FILE),
        ("a\0b", image_files.UNREADABLE_FILE),
        ("file://elsewhere/a.jpg", image_files.UNREADABLE_FILE),
        ("s3://bucket/a.jpg?endpoint_override=evil:80", image_files.SETTINGS),
        ("s3://key:secret@bucket/a.jpg", image_files.SETTINGS),
        ("/dev/zero", image_files.OUTSIDE),
    ],
)
def test_reason_of_a_failed_fetch_leaves_out_the_uri(tmp_path: Path, uri: str, expected: str) -> None:
    (tmp_path / "folder").mkdir()
    assert reason(uri, str(tmp_path)) == expected


def test_options_cannot_come_in_with_a_relative_name() -> None:
    assert reason("a.jpg?endpoint_override=evil:80", "s3://bucket") == image_files.SETTINGS


@given(st.text(max_size=30) | st.lists(PARTS).map("".join))
def test_any_text_is_located_below_the_root_or_has_a_reason(name: str) -> None:
    for root in ("/nowhere/at/all", "s3://bucket/folder"):
        try:
            assert locate(name, [root]).startswith(f"{root}/")
        except UnusableError:
            continue


def test_data_never_makes_a_request(tmp_path: Path) -> None:
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        do_HEAD = do_GET  # noqa: N815

    schemes = (
        *("http", "https", "ftp", "hf", "hdfs", "viewfs", "mock", "gs", "abfs", "s3", "s3a", "FILE", "HTTP"),
        *("fsspec+http", "fsspec+nosuch", "fsspec+zip", "fsspec+reference::http", "fsspec+simplecache::http"),
    )
    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for scheme in schemes:
            assert reason(f"{scheme}://127.0.0.1:{server.server_port}/x", str(tmp_path)) == image_files.OUTSIDE
        server.shutdown()
    assert asked == []


def test_too_large_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(image_files.MAX_BYTES + 1)
    assert reason("large.jpg", str(tmp_path)) == image_files.TOO_MANY_BYTES


def test_store_that_does_not_answer_is_given_up_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, released = [], threading.Event()

    def hang(location: str) -> bytes:
        asked.append(location)
        released.wait(30)
        return b""

    monkeypatch.setattr(image_files, "FETCH_SECONDS", 0.05)
    monkeypatch.setattr(image_files, "_SLOW_SECONDS", 0.01)
    monkeypatch.setattr(image_files, "_outcome", hang)
    started = time.monotonic()
    assert {reason(name, "gs://slow") for name in ("a", "b", "c")} == {image_files.TRANSIENT}
    assert time.monotonic() - started < 5
    assert len(asked) == 1
    assert reason("a", "gs://other") == image_files.TRANSIENT
    assert len(asked) == 2
    released.set()


@pytest.mark.parametrize("error", [ImportError, TypeError, AttributeError, RuntimeError, KeyError, MemoryError])
def test_any_exception_of_a_storage_is_a_reason(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str) -> None:
        raise error("private")

    monkeypatch.setattr("artsel_ray.storage.filesystem", fail)
    assert reason("a.jpg", str(tmp_path)) == image_files.UNREADABLE_FILE


def test_storage_that_does_not_answer_is_a_passing_reason_and_a_refusal_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Store:
        def __init__(self, error: OSError) -> None:
            self.error = error

        def get_file_info(self, path: str) -> None:
            raise self.error

    for error, expected in (
        (OSError("When getting information: AWS Error SLOW_DOWN (HTTP status 503)"), image_files.TRANSIENT),
        (TimeoutError("timed out"), image_files.TRANSIENT),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), image_files.UNREADABLE_FILE),
        (PermissionError("Permission denied"), image_files.UNREADABLE_FILE),
    ):
        monkeypatch.setattr(image_files.storage, "filesystem", lambda _, error=error: (Store(error), "a.jpg"))
        assert reason("s3://bucket/a.jpg", "s3://bucket") == expected


def test_name_that_no_file_can_have_is_no_passing_reason(tmp_path: Path) -> None:
    assert reason(f"{'a' * 300}.jpg", str(tmp_path)) == image_files.UNREADABLE_FILE
