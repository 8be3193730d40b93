import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from artsel_ray.errors import InputError
from artsel_ray.runtime import ray_cluster
from artsel_ray.runtime.ray_cluster import WAIT, fitting, gpus_per_worker, own_queue, start_ray, wait_for_resources

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


NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 0.0}]


@pytest.mark.parametrize(
    ("each", "count"),
    [({"CPU": 1}, 20), ({"CPU": 1, "GPU": 1}, 3), ({"GPU": 2}, 1), ({"GPU": 0.5}, 6), ({"CPU": 9}, 0)],
)
def test_processes_that_fit_are_counted_node_by_node(each: dict[str, float], count: int) -> None:
    assert fitting(NODES, each) == count


def test_worker_gets_a_gpu_where_the_cluster_has_some_unless_the_flag_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_cluster, "node_resources", lambda: NODES)
    assert [gpus_per_worker(given) for given in (None, 0, 1)] == [1, 0, 1]
    monkeypatch.setattr(ray_cluster, "node_resources", lambda: NODES[2:])
    assert [gpus_per_worker(given) for given in (None, 0, 1)] == [0, 0, 1]


@pytest.mark.usefixtures("ray_cluster")
def test_job_that_waits_says_for_what_and_gives_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WAIT, "1")
    wait_for_resources("4 engine(s)", {"CPU": 0.5, "GPU": 0}, 4)
    assert not capsys.readouterr().out
    with pytest.raises(InputError, match=r"^waited 1 s for 3 worker\(s\) with 1 CPU each: the cluster has 2 CPUs"):
        wait_for_resources("3 worker(s)", {"CPU": 1}, 3, at_least=3)
    assert "waiting for 3 worker(s) with 1 CPU each: the cluster has 2 CPUs" in capsys.readouterr().out
    # One of three is enough to begin with. What was reserved while waiting is free again.
    wait_for_resources("3 engine(s)", {"CPU": 2}, 3)
    assert "1 of 3 engine(s) with 2 CPUs each fit now: the cluster has 2 CPUs" in capsys.readouterr().out
    # A job's own Ray gets no more machines.
    monkeypatch.setattr(ray_cluster, "_is_own", True)
    with pytest.raises(InputError, match=r"^no room for 2 engine\(s\) with 1 CPU and 1 GPU each: .* and 0 GPUs"):
        wait_for_resources("2 engine(s)", {"CPU": 1, "GPU": 1}, 2)
    monkeypatch.setattr(ray_cluster, "_is_own", False)
    monkeypatch.setenv(WAIT, "soon")
    with pytest.raises(InputError, match="ARTSEL_RAY_WAIT_SECONDS is soon; it must be a number of seconds"):
        wait_for_resources("a task", {"CPU": 1})


@pytest.mark.slow
def test_killed_head_is_one_clear_line(tmp_path: Path, free_address: str) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(free_address)
    for place in ({"RAY_ADDRESS": free_address}, {"RAY_TMPDIR": str(tmp_path)}):
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(START, env={**environment, **place}, capture_output=True, text=True, timeout=60)
        assert f"InputError: no Ray cluster at {free_address}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken", [{"RAY_TMPDIR": "/proc/none"}, {"RAY_OVERRIDE_RESOURCES": "[1]"}, {"RAY_OVERRIDE_RESOURCES": "{"}]
)
def test_any_error_of_rays_start_is_one_clear_line(broken: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(START, env={**environment, **broken}, capture_output=True, text=True, timeout=120)
    assert re.search(r"^artsel_ray\.errors\.InputError: Ray does not start: .+$", done.stderr, re.MULTILINE), (
        done.stderr
    )
