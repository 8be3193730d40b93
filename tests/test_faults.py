"""A short campaign of faults: the driver, an engine and a node killed, a night started twice, a storage that fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from artsel_ray.models.load import Model

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_nothing_is_lost_or_doubled(smollm2: Model, tmp_path: Path) -> None:
    flags = ["--folder", str(tmp_path), "--pairs", "600", "--kill-nights", "3", "--twin-nights", "1", "--rates", "0.05"]
    command = [sys.executable, str(ROOT / "benchmarks/faults.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
    assert "Nothing lost, nothing doubled, no half night seen." in done.stdout
