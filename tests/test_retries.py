"""Reads from a real S3-compatible server behind a proxy that fails most of them."""

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.data import shuffle
from tests.support.s3_server import Proxy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["500", "503", "reset", "truncated"])
def test_small_reads_outlast_a_storage_that_fails_half_of_them(bucket: str, s3_address: str, kind: str) -> None:
    small, rows = storage.join(bucket, "retries", "small.json"), pa.table({"name": ["n"] * 40})
    storage.write_json(small, {"a": 1})
    work = storage.join(bucket, "retries", "work.arrow")
    partition = pa.array([0, 1] * 20).to_numpy()
    shuffle.write_partitions(work, rows, partition, 2)
    proxy = Proxy(s3_address, rate=0.4, kinds=(kind,))
    with proxy.serve() as failing:
        for _ in range(5):
            assert storage.read_json(small.replace(s3_address, failing)) == {"a": 1}
            assert shuffle.read_partition([work.replace(s3_address, failing)], 1).num_rows == 20
    assert proxy.counts[kind] > 5
