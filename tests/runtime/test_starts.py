import subprocess
import sys
from typing import Any

import ray

from artsel_ray.runtime.starts import Starts


def test_starts_of_a_kind_are_counted_until_a_shard_is_completed(ray_cluster: None) -> None:
    starts: Any = Starts.remote()
    assert ray.get(starts.add.remote("engine", False)) == (1, "")
    ray.get(starts.fail.remote("no memory"))
    assert ray.get(starts.add.remote("engine", True)) == (2, "no memory")
    assert ray.get(starts.add.remote("light", True))[0] == 1
    assert ray.get(starts.clear.remote("engine")) == 1  # restarts
    assert ray.get(starts.add.remote("engine", True))[0] == 1
    assert ray.get(starts.clear.remote("engine")) == 1
    assert ray.get(starts.add.remote("light", False))[0] == 2
    ray.kill(starts)


def test_process_that_counts_imports_nothing_heavy() -> None:
    code = "import sys, artsel_ray.runtime.starts; print({'ray.data', 'pandas', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
