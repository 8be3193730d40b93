"""Half-typed schemes are refused with the right spelling, and outputs inside of inputs by any spelling."""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.errors import InputError
from artsel_ray.locations import SCHEMES, check_output, check_scheme, check_secrets, is_within
from artsel_ray.storage import filesystem


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("s3:/bucket/x", "s3://bucket/x, or ./s3:/bucket/x for a local path"),
        ("s3:bucket/x", "s3://bucket/x"),
        ("s3//bucket", "s3://bucket"),
        ("s3;//bucket", "s3://bucket"),
        ("gs:/x", "gs://x"),
        ("S3://bucket/X", "s3://bucket/X"),
        ("s4://bucket", "s3://bucket"),
        ("s3a://bucket/x?scheme=http", "s3://bucket/x?scheme=http"),
        (" s3://bucket", "s3://bucket"),
        ("flie:///x", "file:////x"),
        ("file:t", "file:///t"),
        ("https://host/x", "s3://BUCKET/PATH, gs://BUCKET/PATH or a path"),
        ("nowhere:/x", "s3://BUCKET/PATH, gs://BUCKET/PATH or a path, or ./nowhere:/x for a local path"),
    ],
)
def test_half_typed_scheme_is_refused_with_the_right_spelling(name: str, right: str) -> None:
    with pytest.raises(InputError) as caught:
        check_scheme(name, "--input")
    assert str(caught.value).startswith(f"--input is {name}, which is no storage's URI; write {right}")


@pytest.mark.parametrize("name", ["s3://", "s3:///bucket/x", "gs:///x"])
def test_bucket_must_be_named(name: str) -> None:
    with pytest.raises(InputError, match=r"names no bucket; write (s3|gs)://BUCKET/PATH"):
        check_scheme(name, "--input")


@pytest.mark.parametrize(
    "name",
    [
        *("s3://b/x", "gs://b", "abfs://c@account/x", "hdfs:///x", "hdfs://nn:8020/x", "file:/x", "file:///x"),
        *("x", "a//b", "s3/bucket", "C:/x", "C:\\x", "run:1", "runs/2024-01-01T10:00", "./s3:/x", "/a/s3:/x"),
        *("smollm2", "org/name", "~/x:y"),
    ],
)
def test_uris_and_local_names_are_left_alone(name: str) -> None:
    check_scheme(name, "--input")


def test_local_name_like_a_scheme_is_left_alone_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nowhere:/x").mkdir(parents=True)
    check_scheme("nowhere:/x", "--input")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_are_those_of_pyarrow(scheme: str) -> None:
    fault = ""
    try:
        pafs.FileSystem.from_uri(f"{scheme}:///" if scheme in ("file", "hdfs", "viewfs") else f"{scheme}://c@a/x")
    except (OSError, pa.ArrowInvalid) as error:  # no Java here
        fault = str(error)
    assert "Unrecognized filesystem" not in fault


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("/a/b/c", "/a/b/"),
        ("/a/x/../b/c", "/a/b"),
        ("/a", "/"),
        ("file:///a%20b/c", "/a b"),
        ("/a b/c", "file:/a%20b"),
        ("s3://b/p/q", "s3://b/p/"),
        ("s3://b//p/./q?scheme=http", "s3://b/p?endpoint_override=x"),
        ("s3://b/p", "s3://b"),
        ("gcs://b/p", "gs://b"),
    ],
)
def test_folder_holds_itself_and_what_is_below(inner: str, outer: str) -> None:
    assert is_within(inner, outer)
    with pytest.raises(InputError, match=r"^--output .* is in the folder of --examples, .*; give one outside of it$"):
        check_output(inner, {"--titles": ["s3://c/x"], "--examples": [outer]})
    with pytest.raises(InputError, match=r"^(--examples .* is in the folder of --output|--output .* --examples), "):
        check_output(outer, {"--titles": ["s3://c/x"], "--examples": [inner]})


@pytest.mark.parametrize(
    ("inner", "outer"),
    [("/a/bc", "/a/b"), ("/a/b", "/a/c"), ("s3://b/pq", "s3://b/p"), ("s3://b2/p", "s3://b"), ("gs://b/p", "s3://b")],
)
def test_folder_does_not_hold_its_neighbors(inner: str, outer: str) -> None:
    assert not is_within(inner, outer)
    check_output(inner, {"--examples": [outer]})


def test_passwords_are_not_shown() -> None:
    secret = "s3://key:secret@bucket/x"
    for call in (
        lambda: check_scheme(f"s3a{secret[2:]}", "--input"),
        lambda: check_output(secret, {"--input": [secret]}),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "secret" not in str(caught.value)


SECRETS = (
    *("s3://key:secret@bucket/x", "s3a://key:secret@bucket/x", "s3://key:sec/ret@bucket/x", "s3://secret@bucket/x"),
    *("gs://user:secret@bucket/x", "hdfs://user:secret@nn:8020/x", "abfs://c:secret@account/x", "az://c:secret@a/x"),
    *(
        "abfs://c@account/x?sig=secret",
        "abfs://c@account/x?sv=1&se=2&sig=sec%2Fret",
        "s3://b/x?secret",
        "gs://b?%73ig=secret",
    ),
    *("s3://b/x?secret_key=secret", "s3://b/x?endpoint_override=u:secret@host", "s3://b/x?X-Amz-Signature=secret"),
    *(
        "s3://b/x?region=x&sig=secret",
        "az://c@a/x?sig=secret",
        "https://account/c?sig=secret",
        "abfs://c@a/x?account_key=secret",
    ),
)


@pytest.mark.parametrize("uri", SECRETS)
def test_secrets_in_a_uri_are_refused_and_never_shown(uri: str) -> None:
    for call in (lambda: check_scheme(uri, "--input"), lambda: check_secrets(uri), lambda: filesystem(uri)):
        with pytest.raises(InputError) as caught:
            call()
        assert not re.search("secret|sec%|sec/|ret@", str(caught.value))


@pytest.mark.parametrize(
    "uri",
    [
        "s3://b/x?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
        "gs://anonymous@b/x",
        "abfs://c@account.dfs.core.windows.net/x",
        "hdfs://nn:8020/x?user=me&replication=1",
        "s3://b/x?",
        "abfs://account@127.0.0.1:10000/c",
    ],
)
def test_options_without_secrets_are_taken(uri: str) -> None:
    check_secrets(uri)


@pytest.mark.parametrize(
    "uri", ["fsspec+http://127.0.0.1:1/x", "hf://org/name", "fsspec+memory://x", "mock://x", "http://x", "FILE:///x"]
)
def test_other_schemes_are_no_storage(uri: str) -> None:
    with pytest.raises(InputError, match="no storage's URI"):
        filesystem(uri)


@pytest.mark.parametrize(
    "uri", ["hf://org/name", "hf://models/org/name", "HF:/org/name", "https://huggingface.co/org/name"]
)
def test_address_of_the_hub_is_answered_with_the_models_name(uri: str) -> None:
    message = "^--model is .*, an address of the Hugging Face hub, .* such as org/name, and tables"
    with pytest.raises(InputError, match=message):
        check_scheme(uri, "--model")


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert is_within(f"{tmp_path}/link/sub/new", f"{tmp_path}/real")
    assert is_within(f"{tmp_path}/real/new", f"{tmp_path}/link/")
    os.symlink(tmp_path, tmp_path / "real/out")
    assert is_within(f"{tmp_path}/real/out/x", f"{tmp_path}/real")


@given(st.lists(st.sampled_from(["a", "b", "..", "."]), max_size=6), st.sampled_from(["/root", "s3://b"]))
def test_any_spelling_below_a_folder_is_within_its_parents(parts: list[str], root: str) -> None:
    depth = 0
    for part in parts:
        depth += {"..": -1, ".": 0}.get(part, 1)
        if depth < 0:
            return
    assert is_within("/".join([root, *parts]), root)
