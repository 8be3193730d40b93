"""Storage on a real S3-compatible server, on loopback."""

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from tests.support.s3_server import READER_KEY, READER_SECRET

pytestmark = pytest.mark.slow


def test_objects_tables_and_manifests_round_trip(bucket: str) -> None:
    rows = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": [1999], "synopsis": [None]})
    storage.write_table(storage.join(bucket, "titles", "part-0.parquet"), rows, "titles")
    storage.write_object(storage.join(bucket, "titles", "_work", "part-1.parquet"), b"hidden")
    assert storage.list_files(storage.join(bucket, "titles")) == [storage.join(bucket, "titles", "part-0.parquet")]
    assert read_table(storage.join(bucket, "titles"), "titles").to_pylist() == rows.to_pylist()
    assert storage.read_manifest(bucket) is None
    storage.write_manifest(bucket, {"parts": 1})
    assert storage.read_manifest(bucket) == {"parts": 1}
    storage.delete(storage.join(bucket, "titles"))
    assert storage.find_files(storage.join(bucket, "titles")) == []


def test_missing_bucket_is_one_line(bucket: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.list_files(bucket.replace("//night", "//absent"))
    assert "absent" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_secret_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this-one")
    with pytest.raises(InputError) as caught:
        storage.list_files(bucket.replace("//night", "//other"))
    assert "\n" not in str(caught.value)
    assert "not-this-one" not in str(caught.value)


def test_writing_without_permission_is_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_object(storage.join(bucket, "mine.json"), b"{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = bucket + "&region=us-east-2"  # a separate connection: the other one keeps its keys
    assert storage.read_object(storage.join(reader, "mine.json")) == b"{}"
    with pytest.raises(InputError, match=r"cannot write .*yours\.json.*ACCESS_DENIED") as caught:
        storage.write_object(storage.join(reader, "yours.json"), b"{}")
    assert "\n" not in str(caught.value)
    assert READER_SECRET not in str(caught.value)
