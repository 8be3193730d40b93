"""A short fault-injection suite: driver, actors and a node killed, a run started twice, a storage that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from artsel_ray.models.load import Model

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_faults_lose_and_duplicate_nothing(smollm2: Model, tmp_path: Path) -> None:
    flags = ["--pairs", "400", "--killed-runs", "3", "--rates", "0.05"]
    # tests/runtime/test_sharded_job.py has two drivers on a local disk.
    flags += ["--duplicate-runs", "1", "--duplicates-on", "S3"]
    command = [sys.executable, str(ROOT / "benchmarks/faults.py"), "--folder", str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert "Nothing lost, nothing duplicated, no incomplete run seen." in done.stdout
