import subprocess
import sys
from typing import Any

import ray

from artsel_ray.runtime.starts import Starts


def test_starts_are_counted_until_a_shard_is_completed(ray_cluster: None) -> None:
    starts: Any = Starts.remote()
    assert ray.get(starts.add.remote(False)) == (1, "")
    ray.get(starts.fail.remote("no memory"))
    assert ray.get(starts.add.remote(True)) == (2, "no memory")
    assert ray.get(starts.clear.remote()) == 1  # restarts
    assert ray.get(starts.add.remote(True)) == (1, "no memory")
    assert ray.get(starts.clear.remote()) == 1


def test_process_that_counts_imports_nothing_heavy() -> None:
    code = "import sys, artsel_ray.runtime.starts; print({'ray.data', 'pandas', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
