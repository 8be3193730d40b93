"""The Ray cluster that a job runs on: the one it was submitted to, one that runs on this machine, or its own."""

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.job_config import JobConfig
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from artsel_ray.errors import InputError, first_line
from artsel_ray.runtime.own_ray import closed_to_others
from artsel_ray.runtime.ray_address import check_address
from artsel_ray.runtime.task_result import as_input_error

WAIT = "ARTSEL_RAY_WAIT_SECONDS"
"""Environment variable: how long a job waits for a cluster's CPUs or GPUs."""
# Starting a machine with GPUs and pulling its image takes minutes. A job's own Ray gets no more machines.
_WAIT_SECONDS, _OWN_WAIT_SECONDS = 1800, 30
_SILENT_SECONDS = 5
_WORKER_SECONDS = 300
_REMEDY = "ask for fewer, or take a cluster that has them"
# Ray's default is to try forever again what its memory monitor kills.
_OOM_RETRIES = {"RAY_task_oom_retries": "5"}
# Whether the job has started its Ray itself, which then has all CPUs and GPUs that it will ever have.
_is_own = False


def start_ray(dashboard: bool = False) -> None:
    """Connects, unless connected, to the cluster of `RAY_ADDRESS` or `ray start`, or starts one for this job alone.

    Raises:
        InputError: if there should be a cluster and none answers, or it has no CPU for a task.
    """
    global _is_own
    if not ray.is_initialized():
        _is_own = not check_address()
        os.environ.update(_OOM_RETRIES | os.environ)
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Without an address it never joins a cluster that another job has started for itself, and would end with it.
        try:
            closed: AbstractContextManager[dict[str, Any]] = closed_to_others() if _is_own else nullcontext({})
            with _same_sigterm(), closed as own:
                context = ray.init(
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    job_config=_without_working_folder(),
                    **own,
                )
        except Exception as error:  # noqa: BLE001  # it starts programs, reads files and asks servers
            raise InputError(f"Ray does not start: {first_line(error)}") from None
        if dashboard and context.dashboard_url:
            print(f"Ray's dashboard: http://{context.dashboard_url}", flush=True)
        wait_for_resources("a task", {"CPU": 1})
        _check_worker()
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    # It logs the traceback of what it raises.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keeps the job's own answer to SIGTERM, which `ray.init` replaces by one that ends in an abort of C++."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _without_working_folder() -> JobConfig:
    """Returns a config with which workers do not import from the folder that the job was started in.

    A `numpy.py` there would be taken for numpy, since Ray 2.60 puts that folder first. If Python itself imports from
    it, as with `python -m`, workers do too.
    """
    config, here = JobConfig(), os.path.abspath(os.curdir)
    is_client = os.environ.get("RAY_ADDRESS", "").startswith("ray://")  # whose server is elsewhere
    if os.path.abspath(sys.path[0]) != here and not is_client:
        config._py_driver_sys_path = _Except(here)
    return config


class _Except(list[str]):
    """A list that drops one text."""

    def __init__(self, dropped: str) -> None:
        self._dropped = dropped

    def extend(self, texts: Iterable[str]) -> None:
        super().extend(text for text in texts if text != self._dropped)


def _do_nothing() -> None:
    """What a worker can do only if it can import this module."""


def _check_worker() -> None:
    """Makes sure that a worker process starts and can import this package: Ray itself waits forever.

    Raises:
        InputError: if it does not.
    """
    try:
        ray.get(ray.remote(num_cpus=0)(_do_nothing).remote(), timeout=_WORKER_SECONDS)
    except GetTimeoutError:
        raise InputError(f"no worker process of Ray starts within {_WORKER_SECONDS} s; Ray's logs say why") from None
    except RayError as error:
        raise as_input_error(error) from None


def own_queue() -> Queue:
    """Returns a queue on this job's own node: with any other node it would be lost, and the job with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def wait_for_resources(what: str, each: dict[str, float], count: int = 1, at_least: int = 1) -> None:
    """Returns when the cluster can run `at_least` of `count` processes; asks an autoscaler for all of them.

    Args:
        what: the processes' name for the user, such as `2 engines`.
        each: CPUs and GPUs of each process.

    Raises:
        InputError: if it cannot within the limit of `ARTSEL_RAY_WAIT_SECONDS`.
    """
    each = {name: amount for name, amount in each.items() if amount}
    if not each:
        return
    limit, at_least = (_OWN_WAIT_SECONDS, count) if _is_own else (_limit(), at_least)
    wanted = f"{what} with {_listed(each)}{' each' * (count > 1)}"
    if _is_own and fitting(node_resources(), each) < count:
        raise InputError(f"no room for {wanted}: {_found()}; {_REMEDY}")
    # Groups that are placed and removed again: they wait for what is free, and an autoscaler sees them.
    groups = [placement_group([each] * at_least)] + [placement_group([each]) for _ in range(count - at_least)]
    try:
        if not groups[0].wait(min(_SILENT_SECONDS, limit)):
            print(f"waiting for {wanted}: {_found()}; gives up after {limit:g} s ({WAIT})", flush=True)
            if not groups[0].wait(max(limit - _SILENT_SECONDS, 0)):
                remedy = f"{_REMEDY}, or set {WAIT} to wait longer"
                raise InputError(f"waited {limit:g} s for {wanted}: {_found()}; {remedy}")
        if (fit := fitting(node_resources(), each)) < count:
            print(f"{fit} of {wanted} fit now: {_found()}; the others start when there is room", flush=True)
    finally:
        for group in groups:
            remove_placement_group(group)


def _limit() -> float:
    text = os.environ.get(WAIT, str(_WAIT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{WAIT} is {text}; it must be a number of seconds")
    return seconds


def gpus_per_worker(given: int | None) -> int:
    """Returns what `--gpus-per-worker` says, or else one GPU where the cluster has some."""
    return int(any(node["GPU"] for node in node_resources())) if given is None else given


def node_resources() -> list[dict[str, float]]:
    """Returns the CPUs and GPUs of each node that is alive."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{name: node.get(name, 0.0) for name in ("CPU", "GPU")} for node in alive]


def fitting(nodes: list[dict[str, float]], each: dict[str, float]) -> int:
    """Returns how many processes fit on the nodes together; each is on one node."""
    return sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in each.items()) for node in nodes)


def _found() -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    listed = (f"{total.get(name, 0):g} {name}s ({free.get(name, 0):g} free)" for name in ("CPU", "GPU"))
    return f"the cluster has {' and '.join(listed)} on {len(node_resources())} node(s)"


def _listed(each: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}{'s' * (amount > 1)}" for name, amount in each.items())
