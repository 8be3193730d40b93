"""Storage on a real S3-compatible server, on loopback."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError

PORT = 18333
QUERY = f"?endpoint_override=127.0.0.1:{PORT}&scheme=http&allow_bucket_creation=true"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A URI with its query; the server asks for the credentials that the environment has."""
    folder = tmp_path_factory.mktemp("s3")
    access = {"accessKey": "K", "secretKey": "S"}
    identity = {"name": "t", "credentials": [access], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed
    command = [
        weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        "-master.port=19333", "-volume.port=18080", "-filer", "-filer.port=18888", "-s3", f"-s3.port={PORT}",
        f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0", "-volume.max=20",
        "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with open(folder / "log", "w") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "K")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "S")
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{PORT}/healthz", server, folder / "log")
            yield f"s3://night/data{QUERY}"
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(url, timeout=1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"no answer from {url}: {log.read_text()[-2000:]}")


def test_objects_tables_and_manifests_come_back(bucket: str) -> None:
    rows = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": [1999], "synopsis": [None]})
    storage.write_table(storage.join(bucket, "titles", "part-0.parquet"), rows, "titles")
    storage.write_object(storage.join(bucket, "titles", "_work", "part-1.parquet"), b"hidden")
    assert storage.list_files(storage.join(bucket, "titles")) == [f"s3://night/data/titles/part-0.parquet{QUERY}"]
    assert storage.read_table(storage.join(bucket, "titles"), "titles").to_pylist() == rows.to_pylist()
    assert storage.read_manifest(bucket) is None
    storage.write_manifest(bucket, {"parts": 1})
    assert storage.read_manifest(bucket) == {"parts": 1}
    storage.delete(storage.join(bucket, "titles"))
    assert storage.find_files(storage.join(bucket, "titles")) == []


def test_a_missing_bucket_is_one_clear_line(bucket: str) -> None:
    with pytest.raises(InputError) as caught:
        storage.list_files(f"s3://absent/data{QUERY}")
    assert "absent" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_secret_is_one_clear_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this-one")
    with pytest.raises(InputError) as caught:
        storage.list_files(f"s3://other/data{QUERY}")
    assert "\n" not in str(caught.value)
    assert "not-this-one" not in str(caught.value)
