"""The pool of actors with an engine each, on what the cluster has."""

from collections.abc import Sequence
from typing import Any

import ray

from artsel_ray.errors import InputError


def of_shards(shards: Sequence[int]) -> ray.data.Dataset:
    """Returns a dataset of one row `shard` for each number, in a block of its own, so that actors share them out."""
    return ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))


def engine_pool(engines: int, tensor_parallel: int, gpus_per_engine: float | None = None) -> dict[str, Any]:
    """Returns how `map_batches` runs actors that hold an engine, one shard at a time.

    Args:
        gpus_per_engine: by default `tensor_parallel` where the cluster has GPUs, else none.

    Raises:
        InputError: if the cluster has too few GPUs for `tensor_parallel`.
    """
    cpus, gpus = ray.cluster_resources().get("CPU", 1.0), ray.cluster_resources().get("GPU", 0.0)
    if gpus_per_engine is None:
        gpus_per_engine = float(tensor_parallel if gpus else 0)
    wanted = engines * tensor_parallel
    if tensor_parallel > 1 and wanted > gpus:
        raise InputError(
            f"--engines {engines} with --tensor-parallel {tensor_parallel} need {wanted} GPUs, the cluster has {gpus:g}"
        )
    threads = max(1, int(cpus // engines))
    return {
        "batch_size": 1,
        "compute": ray.data.ActorPoolStrategy(size=engines),
        "num_cpus": min(1.0, cpus / engines),
        "num_gpus": gpus_per_engine,
        # Engines on one machine must not bind to the same cores.
        "runtime_env": {"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}},
    }
