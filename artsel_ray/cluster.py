"""The Ray cluster that a job runs on: the one it was submitted to, one that runs on this machine, or its own."""

import logging

import ray


def start_ray(dashboard: bool = False) -> None:
    """Connects to the cluster of `RAY_ADDRESS` or of `ray start` on this machine, or starts one for this job alone.

    Ray's own progress bars and logs stay off: a job prints its own progress. Does nothing if connected already.

    Args:
        dashboard: give a cluster that is started for this job a dashboard, and print where it is.
    """
    if not ray.is_initialized():
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Without an address it never joins a cluster that another job has started for itself, and would end with it.
        context = ray.init(include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
        if dashboard and context.dashboard_url:
            print(f"Ray's dashboard: http://{context.dashboard_url}", flush=True)
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
