"""Jobs submitted to a Ray head, as on a cluster, with all they read and write on a real S3-compatible server."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artsel_ray import storage
from benchmarks.object_store import SECRET

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture
def head(s3_address: str) -> Iterator[dict[str, str]]:
    """The environment of a head node, with token authentication as it is by default."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8265",
        "RAY_AUTH_MODE": "token",
        "AWS_ENDPOINT_URL": f"http://{s3_address}",
        "AWS_REGION": "us-east-1",
    }
    command = ["ray", "start", "--head", "--num-cpus=2", "--disable-usage-stats", "--block"]
    # The tests' own Ray may hold the default port, and without its agent a node takes no jobs.
    command += ["--dashboard-agent-listen-port=52366"]
    # A folder of its own, so that no other test takes it for the machine's Ray; pytest's are too long for a socket.
    with tempfile.TemporaryDirectory() as folder:
        own = {**environment, "RAY_TMPDIR": folder}
        with subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert any("Ray runtime started" in line for line in process.stdout)
            yield environment
            # Not `ray stop`: that ends every Ray on the machine, the tests' own among them.
            process.terminate()


def test_the_whole_path_runs_as_submitted_jobs(
    head: dict[str, str], bucket: str, tiny_llama: Callable[[bool], str]
) -> None:
    storage.write_json(storage.join(bucket, "made.json"), {})  # and with it the bucket
    model, base = tiny_llama(True), "s3://night/data"
    world, data, trained = (f"{base}/{name}" for name in ("world", "prepared", "trained"))
    jobs = [
        f"simulate.py --output {world} --users 60 --titles 10 --interactions-per-user 6 --caption-tokens 16",
        f"prepare.py --input {world} --output {data} --test-size 20 --validation-size 5",
        f"train.py --method sft --examples {data}/examples --model {model} --output {trained} --workers 0 "
        "--max-steps 2 --batch-size 2 --validation-size 4",
        f"score.py --requests {data}/requests/test --titles {world}/titles --artworks {world}/artworks "
        f"--model {trained} --engine transformers --decoding rank --output {base}/predictions",
        f"evaluate.py --examples {data}/examples/test --predictions {base}/predictions "
        f"--oracle {world}/oracle --output {base}/evaluation",
    ]
    for job in jobs:
        command = ["ray", "job", "submit", "--working-dir", ".", "--", "python", *f"jobs/{job}".split()]
        done = subprocess.run(command, env=head, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
    assert "artworks" in storage.read_json(storage.join(bucket, "prepared", "summary.json"))["simulated"]
    metrics = storage.read_json(storage.join(bucket, "evaluation", "metrics.json"))
    assert (metrics["examples"], metrics["missing"]) == (20, 0)
    report = storage.read_object(storage.join(bucket, "evaluation", "report.html")).decode()
    assert "simulated" in report.lower()
