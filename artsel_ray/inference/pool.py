"""Actors with an engine each, over shards."""

from collections.abc import Callable
from typing import Any

import ray

from artsel_ray.errors import InputError


def shards(indices: list[int]) -> ray.data.Dataset:
    """Returns a dataset of shards' numbers, one a block."""
    return ray.data.from_items([{"shard": index} for index in indices], override_num_blocks=len(indices))


def with_engines(
    dataset: ray.data.Dataset,
    actor: Callable[..., Any],
    arguments: list[Any],
    engines: int,
    tensor_parallel: int,
    gpus_per_engine: float | None = None,
) -> ray.data.Dataset:
    """Puts the dataset's blocks through actors that hold an engine each, on GPUs where the cluster has some.

    Raises:
        InputError: if engines of several GPUs need more than the cluster has.
    """
    cpus, gpus = ray.cluster_resources().get("CPU", 1.0), ray.cluster_resources().get("GPU", 0.0)
    wanted = engines * tensor_parallel
    if tensor_parallel > 1 and wanted > gpus:
        raise InputError(
            f"--engines {engines} with --tensor-parallel {tensor_parallel} need {wanted} GPUs, the cluster has {gpus:g}"
        )
    if gpus_per_engine is None:
        gpus_per_engine = float(tensor_parallel if gpus else 0)
    threads = max(1, int(cpus // engines))
    print(f"starting {engines} engine(s), which takes a minute or more", flush=True)
    return dataset.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=engines),
        num_cpus=min(1.0, cpus / engines),
        num_gpus=gpus_per_engine,
        # Engines on one machine must not bind to the same cores.
        runtime_env={"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}},
    )
