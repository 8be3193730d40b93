import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from artsel_ray.runtime import ray_cluster
from artsel_ray.runtime.ray_cluster import own_queue, start_ray

START = [sys.executable, "-c", "from artsel_ray.runtime.ray_cluster import start_ray; start_ray()"]


@pytest.fixture
def free_address() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.usefixtures("ray_cluster")
def test_connected_job_keeps_its_cluster_and_turns_rays_output_off() -> None:
    node = ray.get_runtime_context().get_node_id()
    start_ray()
    assert ray.get_runtime_context().get_node_id() == node
    context = ray.data.DataContext.get_current()
    assert not context.enable_progress_bars
    assert not context.print_on_execution_start


@pytest.mark.usefixtures("ray_cluster")
def test_queue_is_on_the_jobs_own_node() -> None:
    queue = own_queue()
    queue.put("first")
    assert queue.get(timeout=30) == "first"
    queue.shutdown()


def test_address_of_an_earlier_ray_start_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `read_ray_address` is not part of Ray's API: this fails when a new Ray moves it or its file.
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("10.0.0.1:6379")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_cluster.read_ray_address() == "10.0.0.1:6379"


@pytest.mark.slow
def test_killed_head_is_one_clear_line(tmp_path: Path, free_address: str) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(free_address)
    for place in ({"RAY_ADDRESS": free_address}, {"RAY_TMPDIR": str(tmp_path)}):
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(START, env={**environment, **place}, capture_output=True, text=True, timeout=60)
        assert f"InputError: no Ray cluster at {free_address}" in done.stderr
