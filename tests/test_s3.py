"""Reads and conditional writes on a real S3-compatible server; the reads, behind a proxy that fails most of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.data import shuffle
from artsel_ray.errors import InputError
from tests.support.s3_server import KEY, READER_KEY, READER_SECRET, SECRET, Proxy, uri

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["500", "503", "reset", "truncated"])
def test_small_reads_survive_failures(bucket: str, s3_address: str, kind: str) -> None:
    small, rows = storage.join(bucket, "retries", "small.json"), pa.table({"name": ["n"] * 40})
    storage.write_json(small, {"a": 1})
    spill_file = storage.join(bucket, "retries", "work.arrow")
    partition = pa.array([0, 1] * 20).to_numpy()
    shuffle.write_partitions(spill_file, rows, partition, 2)
    proxy = Proxy(s3_address, rate=0.4, kinds=(kind,))
    with proxy.serve() as failing:
        for _ in range(5):
            assert storage.read_json(small.replace(s3_address, failing)) == {"a": 1}
            assert shuffle.read_partition([spill_file.replace(s3_address, failing)], 1).num_rows == 20
    assert proxy.counts[kind] > 5


def test_one_of_many_writers_creates_the_object(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = storage.join(bucket, "new", "config.json")
    monkeypatch.setattr(storage, "exists", lambda _: False)  # no writer sees another's object before it tries
    with ThreadPoolExecutor(16) as pool:
        created = list(pool.map(lambda writer: storage.create(target, b"%d" % writer), range(16)))
    (winner,) = [writer for writer, is_mine in enumerate(created) if is_mine]
    assert storage.read_object(target) == b"%d" % winner


@pytest.mark.parametrize("kind", ["500", "503", "reset"])
def test_create_survives_failures(bucket: str, s3_address: str, kind: str) -> None:
    target = storage.join(bucket, "created", f"{kind}.json")
    storage.write_object(storage.join(bucket, "created", "first.json"), b"{}")  # and with it the bucket
    proxy = Proxy(s3_address, rate=0.4, kinds=(kind,))
    with proxy.serve() as failing:
        for number in range(5):
            numbered = storage.join(target.replace(s3_address, failing), str(number))
            assert storage.create(numbered, b"first")
            assert not storage.create(numbered, b"second")
    assert proxy.counts[kind] > 2
    assert storage.read_object(storage.join(target, "0")) == b"first"


def test_creating_without_permission_is_one_line(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = uri(s3_address, "closed/config.json")
    storage.write_object(target, b"{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    with pytest.raises(InputError, match=r"cannot write s3://closed/other.json.*AccessDenied") as caught:
        storage.create(target.replace("config", "other"), b"{}")
    assert "\n" not in str(caught.value)
    assert READER_SECRET not in str(caught.value)


def test_credentials_come_from_the_usual_files(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / "credentials").write_text(keys)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    filed = bucket + "&region=us-west-1"
    storage.write_object(storage.join(filed, "filed.json"), b"{}")
    assert storage.create(storage.join(filed, "created.json"), b"{}")
