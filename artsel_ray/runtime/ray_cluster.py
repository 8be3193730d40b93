"""The Ray cluster that a job runs on: the one it was submitted to, one that runs on this machine, or its own."""

import logging
import os
import socket

import ray
from ray._private.utils import read_ray_address  # Ray 2.60; tests/runtime/test_ray_cluster.py fails when it changes
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from artsel_ray.errors import InputError

_TIMEOUT_SECONDS = 10


def start_ray(dashboard: bool = False) -> None:
    """Connects to the cluster of `RAY_ADDRESS` or of `ray start` on this machine, or starts one for this job alone.

    Ray's own progress bars and logs stay off: a job prints its own progress. Does nothing if connected already.

    Args:
        dashboard: give a cluster that is started for this job a dashboard, and print its address.

    Raises:
        InputError: if there should be a cluster and none answers.
    """
    if not ray.is_initialized():
        _check_reachable()
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Without an address it never joins a cluster that another job has started for itself, and would end with it.
        context = ray.init(include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
        if dashboard and context.dashboard_url:
            print(f"Ray's dashboard: http://{context.dashboard_url}", flush=True)
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def own_queue() -> Queue:
    """Returns a queue on this job's own node: with any other node it would be lost, and the job with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _check_reachable() -> None:
    """Makes sure that a Ray answers at the address where one should be: a killed head leaves its address behind.

    Ray would wait for it silently.
    """
    address = os.environ.get("RAY_ADDRESS") or read_ray_address() or ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:  # `auto`, or a client's address
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT_SECONDS).close()
    except OSError:
        raise InputError(
            f"no Ray cluster at {address} (from RAY_ADDRESS or an earlier `ray start`); start it, or run "
            "`ray stop` and unset RAY_ADDRESS"
        ) from None
