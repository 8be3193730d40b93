"""Storage on a real S3-compatible server, on loopback."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import storage
from artsel_ray.data.checked_reader import CheckedReader, read_table
from artsel_ray.errors import InputError
from artsel_ray.schema import TIMESTAMP
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


def test_tables_of_other_tools_are_listed_and_read(bucket: str) -> None:
    folder = storage.join(bucket, "log")
    rows = pa.table({"title_id": [7], "timestamp": pa.array([0], TIMESTAMP)})
    for name in ("day=2024-01-01/user_id=a%2Fb c/000000_0", "day=_/user_id=__HIVE_DEFAULT_PARTITION__/a.parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink)
        storage.write_object(storage.join(folder, name), sink.getvalue())
    for name in ("day=2024-01-01_$folder$", "_SUCCESS", "rows.csv"):
        storage.write_object(storage.join(folder, name), b"")
    columns = ["user_id", "title_id"]
    found = CheckedReader(storage.list_files(folder), "interactions", columns).all().valid.select(columns)
    assert found.to_pylist() == [{"user_id": "a/b c", "title_id": "7"}, {"user_id": None, "title_id": "7"}]
    storage.write_object(storage.join(folder, "_delta_log", "0.json"), b"{}")
    for part in (folder, storage.join(folder, "day=_")):
        with pytest.raises(InputError, match="is a table of Delta"):
            storage.list_files(part)


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
