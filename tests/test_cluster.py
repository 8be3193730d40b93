"""Jobs submitted to a Ray head, as on a cluster."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.models.load import Model

ROOT = Path(__file__).parent.parent
ADDRESS = "http://127.0.0.1:8265"
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_API_SERVER_ADDRESS": ADDRESS,
    "RAY_AUTH_MODE": "token",
}
pytestmark = pytest.mark.slow


@pytest.fixture
def head() -> Iterator[None]:
    """A head node, with token authentication as it is by default."""
    command = ["ray", "start", "--head", "--num-cpus=2", "--disable-usage-stats", "--block"]
    # The tests' own Ray may hold the default port, and without its agent a node takes no jobs.
    command += ["--dashboard-agent-listen-port=52366"]
    # A folder of its own, so that no other test takes it for the machine's Ray; pytest's are too long for a socket.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**ENVIRONMENT, "RAY_TMPDIR": folder}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert any("Ray runtime started" in line for line in process.stdout)
            yield
            # Not `ray stop`: that ends every Ray on the machine, the tests' own among them.
            process.terminate()


@pytest.mark.usefixtures("head")
def test_the_whole_path_runs_as_submitted_jobs(smollm2: Model, tmp_path: Path) -> None:
    world, data = tmp_path / "world", tmp_path / "data"
    jobs = [
        f"simulate.py --output {world} --users 60 --titles 10 --interactions-per-user 6 --caption-tokens 16",
        f"prepare.py --input {world} --output {data} --test-size 20 --validation-size 5",
        f"score.py --requests {data}/requests/test --titles {world}/titles --artworks {world}/artworks "
        f"--model smollm2 --engine null --decoding rank --output {tmp_path}/predictions",
        f"evaluate.py --examples {data}/examples/test --predictions {tmp_path}/predictions "
        f"--oracle {world}/oracle --output {tmp_path}/evaluation",
    ]
    for job in jobs:
        command = ["ray", "job", "submit", "--working-dir", ".", "--", "python", *f"jobs/{job}".split()]
        done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "artworks" in storage.read_json(str(data / "summary.json"))["simulated"]
    metrics = storage.read_json(str(tmp_path / "evaluation/metrics.json"))
    assert (metrics["examples"], metrics["missing"]) == (20, 0)
    report = (tmp_path / "evaluation/report.html").read_text()
    assert "simulated" in report.lower()
