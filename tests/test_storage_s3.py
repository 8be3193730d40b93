"""Storage on a real S3-compatible server, on loopback."""

from pathlib import Path

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.conditional_create import create
from artsel_ray.errors import InputError
from tests.support.s3_server import KEY, READER_KEY, READER_SECRET, SECRET

pytestmark = pytest.mark.slow


def test_objects_tables_and_manifests_come_back(bucket: str) -> None:
    rows = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": [1999], "synopsis": [None]})
    storage.write_table(storage.join(bucket, "titles", "part-0.parquet"), rows, "titles")
    storage.write_object(storage.join(bucket, "titles", "_work", "part-1.parquet"), b"hidden")
    assert storage.list_files(storage.join(bucket, "titles")) == [storage.join(bucket, "titles", "part-0.parquet")]
    assert storage.read_table(storage.join(bucket, "titles"), "titles").to_pylist() == rows.to_pylist()
    assert storage.read_manifest(bucket) is None
    storage.write_manifest(bucket, {"parts": 1})
    assert storage.read_manifest(bucket) == {"parts": 1}
    storage.delete(storage.join(bucket, "titles"))
    assert storage.find_files(storage.join(bucket, "titles")) == []


def test_a_missing_bucket_is_one_clear_line(bucket: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.list_files(bucket.replace("//night", "//absent"))
    assert "absent" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_secret_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this-one")
    with pytest.raises(InputError) as caught:
        storage.list_files(bucket.replace("//night", "//other"))
    assert "\n" not in str(caught.value)
    assert "not-this-one" not in str(caught.value)


def test_a_bucket_that_one_may_only_read_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_object(storage.join(bucket, "mine.json"), b"{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    reader = bucket + "&region=us-east-2"  # a connection of its own: the other's keys are kept
    assert storage.read_object(storage.join(reader, "mine.json")) == b"{}"
    with pytest.raises(InputError, match=r"cannot write .*yours\.json.*ACCESS_DENIED") as caught:
        storage.write_object(storage.join(reader, "yours.json"), b"{}")
    assert "\n" not in str(caught.value)
    assert READER_SECRET not in str(caught.value)


def test_keys_come_from_the_usual_files(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(keys)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    filed = bucket + "&region=us-west-1"
    storage.write_object(storage.join(filed, "filed.json"), b"{}")
    assert create(storage.join(filed, "created.json"), b"{}")
