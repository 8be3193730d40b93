"""Logs and artworks become examples, on Ray Data: three stages of tasks that read and write storage.

The name of every object depends on its task's item only, so that the output is the same on any number of CPUs.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc
import ray

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.errors import InputError
from artsel_ray.prepare import splits
from artsel_ray.prepare.examples import bucket_examples, write_empty_splits
from artsel_ray.prepare.pairs import bucket_pairs, partition_slice
from artsel_ray.prepare.plan import WORK_FOLDER, Counts, Plan, check_counts, find_slices, summarize, write_invalid
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import CONFIG, Run, claim, refuse_other_jobs
from artsel_ray.runtime.shards import INVALID_FOLDER
from artsel_ray.runtime.task_result import map_tasks

BUCKET_INTERACTIONS = 300_000
_PROGRESS_SECONDS = 5.0
_OUTPUTS = (*(f"examples/{name}" for name in splits.SPLITS), "requests/test", INVALID_FOLDER)
_CATALOG_PART = "catalogue"  # spelled as in earlier outputs, whose parts a new run replaces
_PART = re.compile(rf"part-(\d{{6}}-\d{{3}}|empty|{_CATALOG_PART}|(slice|bucket)-\d{{6}})\.parquet")


def prepare(config: PrepareConfig) -> None:
    """Writes examples/{train,validation,test}, requests/test, rejected, config.json, summary.json, the manifest.

    Deletes what an earlier run left in those folders, after the input was checked.

    Raises:
        InputError: for wrong input, an output of something else, too many invalid impressions, or no example left.
    """
    ends = {"": time.monotonic()}
    plan = make_plan(config)
    catalog, invalid = _read_catalog(config, plan)
    ends["catalog"] = time.monotonic()
    run = _claim(config)
    counts = write_invalid(plan, _CATALOG_PART, invalid)
    start_ray()
    ends["ray_start"] = time.monotonic()
    try:
        plan = _run_stages(config, plan, catalog, counts, ends)
    finally:
        run.check()  # the files of a driver that has taken over are not ours to delete
        storage.delete(storage.join(config.output, WORK_FOLDER))
    seconds = {step: round(end - start, 1) for (_, start), (step, end) in pairwise(ends.items())}
    seconds["total"] = round(time.monotonic() - ends[""], 1)
    world = storage.join(config.input, "summary.json")
    simulated = storage.read_json(world).get("simulated", []) if storage.exists(world) else []
    summary = {**summarize(plan, counts), "seconds": seconds, "simulated": simulated}
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    written = {name: _files(config.output, name) for name in ("examples", "requests", INVALID_FOLDER)}
    run.publish({"rows": {name: counts[name] for name in sorted(counts)}, **written})
    sizes = ", ".join(_size(name, counts) for name in reversed(splits.SPLITS))
    print(f"prepare: {sizes} examples in {storage.join(config.output, 'examples')} ({seconds['total']} s)")


def _size(name: str, counts: Counts) -> str:
    new = counts[f"new_titles/{name}"]
    return f"{counts[f'examples/{name}']:,} {name}" + (f" ({new:,} of new titles)" if new else "")


def make_plan(config: PrepareConfig) -> Plan:
    """Returns what every task of the run knows, once the input's files are found; see `find_slices`."""
    files, slices = find_slices(config.input, config.assets, config.timezone)
    interactions = sum(part.rows for part in slices if part.table == "interactions")
    buckets = config.buckets or -(-interactions // BUCKET_INTERACTIONS)
    now_us = int((time.time() + 86_400) * 1e6)  # clocks may differ by a day
    return Plan(
        config.output, files, slices, buckets, config.history_length, config.split, config.seed, now_us, config.assets,
        config.timezone, config.limits,
    )  # fmt: skip


def _read_catalog(config: PrepareConfig, plan: Plan) -> tuple[Catalog, Any]:
    titles, artworks, folder = plan.files["titles"], plan.files["artworks"], storage.join(config.input, "artworks")
    catalog, invalid = read_catalog(
        titles, artworks, config.asset_kind, config.assets, (folder, *config.image_root), config.limits
    )
    if config.assets == "image":  # whoever reads the examples has the storage's settings: they are not written
        contents = pc.replace_substring_regex(catalog.contents, r"^(\w+://[^?]*)\?.*$", r"\1")
        catalog = dataclasses.replace(catalog, contents=contents)
    return catalog, invalid


def _claim(config: PrepareConfig) -> Run:
    path = storage.join(config.output, CONFIG)
    if not storage.exists(path) and storage.find_files(config.output):
        raise InputError(f"{config.output} holds Parquet files but no {CONFIG} of prepare; give another --output")
    refuse_other_jobs(config.output, {f"{name}_size" for name in splits.SPLITS})
    old = [uri for name in _OUTPUTS for uri in storage.find_files(storage.join(config.output, name))]
    for uri in old:
        if not _PART.fullmatch(uri.partition("?")[0].rpartition("/")[2]):
            raise InputError(f"{uri} was not written by prepare; move it, or give another --output")
    run = claim(config.output)
    # Without the manifest first: a run that stops now must not look finished.
    storage.delete(storage.join(config.output, storage.MANIFEST))
    storage.write_json(path, resolved(config))
    for uri in (*old, storage.join(config.output, WORK_FOLDER)):
        storage.delete(uri)
    return run


def _run_stages(config: PrepareConfig, plan: Plan, catalog: Catalog, counts: Counts, ends: dict[str, float]) -> Plan:
    # Once in the object store; tasks on the same node map the catalog's arrays without a copy.
    known = (ray.put(plan), ray.put(catalog))
    first_x = np.full(len(catalog.title_ids), splits.NEVER)
    for found, first in _stage("partition", partition_slice, known, len(plan.slices)):
        counts.update(found)
        first_x = first_x if first is None else np.minimum(first_x, first)
    ends["partition"] = time.monotonic()
    if plan.split == "title":
        plan = dataclasses.replace(plan, group_x=splits.group_titles(first_x, config.new_titles))
        known = (ray.put(plan), known[1])
    sizes = (config.train_size, config.validation_size, config.test_size)
    keys_g, pairs_g = [splits.concatenate([]) for _ in splits.GROUPS], [0 for _ in splits.GROUPS]
    for found, more_g in _stage("pairs", bucket_pairs, known, plan.buckets):
        counts.update(found)
        for group, more in enumerate(more_g):
            keys_g[group] = splits.concatenate([keys_g[group], more]).smallest(sum(sizes))
            pairs_g[group] += len(more.hash_n)
    check_counts(plan, counts, config.max_reject_rate)
    ends["pairs"] = time.monotonic()
    sizes_g = splits.allot_groups(pairs_g, *sizes)
    last_g = [splits.last_keys(keys, of_group) for keys, of_group in zip(keys_g, sizes_g, strict=True)]
    for found in _stage("examples", bucket_examples, (*known, ray.put(last_g)), plan.buckets):
        counts.update(found)
    write_empty_splits(config.output, counts)
    ends["examples"] = time.monotonic()
    return plan


def _stage(name: str, function: Callable[..., Any], known: tuple[ray.ObjectRef, ...], items: int) -> Iterator[Any]:
    started = printed = time.monotonic()
    results = map_tasks(items, lambda item: function(*ray.get(list(known)), item))
    for done, result in enumerate(results, start=1):
        now = time.monotonic()
        if done == items or now - printed > _PROGRESS_SECONDS:
            print(f"prepare: {name} {done}/{items}, {now - started:.1f} s", flush=True)
            printed = now
        yield result


def _files(output: str, name: str) -> list[str]:
    folder = storage.join(output, name)
    prefix = len(folder.partition("?")[0])
    return [name + uri.partition("?")[0][prefix:] for uri in storage.find_files(folder)]
