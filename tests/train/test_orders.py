"""Orders show each example once an epoch, the same on any number of workers, and groups of a title side by side."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from artsel_ray.config import from_flags
from artsel_ray.train.orders import GroupOrder, Order
from artsel_ray.train.settings import TrainConfig
from tests.support.training import TinyLlama, example_row, fit_in, write_examples

TITLES = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def test_order_has_every_example_once_and_similar_lengths_side_by_side() -> None:
    lengths = [100 + index * 7919 % 1000 for index in range(800)]
    order = Order(lengths, 32, 0)
    first = list(order)
    assert sorted(first) == list(range(800))
    spread = [
        max(batch) - min(batch) for batch in ([lengths[i] for i in first[at : at + 4]] for at in range(0, 800, 4))
    ]
    assert sum(spread) / len(spread) < 50  # of 1,000; about 600 in a random order
    order.epoch = 1
    assert list(order) != first
    order.epoch = 0
    assert list(order) == first
    assert list(Order(lengths, 32, 1)) != first


@given(TITLES, st.integers(1, 8), st.integers(0, 3))
def test_groups_have_every_example_once_and_one_title_each(titles: list[int], size: int, epoch: int) -> None:
    indices = [100 + 3 * position for position in range(len(titles))]  # not all examples are usable
    order = GroupOrder(indices, titles, size, 1, 0)
    order.epoch = epoch
    found = list(order)
    assert sorted(found) == list(range(len(titles)))
    groups = [found[start : start + size] for start in range(0, len(found), size)]
    complete = sum(len({titles[position] for position in group}) == 1 for group in groups if len(group) == size)
    assert complete >= sum(count // size for count in Counter(titles).values())
    # Candidates have one order for a title in a group.
    for group in groups:
        keys = {(titles[position], order.shuffle_key(indices[position])) for position in group}
        assert len(keys) == len({titles[position] for position in group})
        assert all(key in [indices[position] for position in group] for _, key in keys)


def test_groups_differ_between_epochs_and_seeds_and_are_the_same_again() -> None:
    titles = [number % 7 for number in range(200)]

    def shown(seed: int, epoch: int) -> list[int]:
        order = GroupOrder(range(200), titles, 8, 8, seed)
        order.epoch = epoch
        return list(order)

    assert shown(0, 0) == shown(0, 0)
    assert len({tuple(each) for each in (shown(0, 0), shown(0, 1), shown(1, 0))}) == 3


def test_an_order_that_was_looked_at_follows_the_epoch() -> None:
    order = GroupOrder(range(40), [number % 2 for number in range(40)], 4, 4, 0)
    first = [order.shuffle_key(index) for index in range(40)]
    order.epoch = 1
    assert [order.shuffle_key(index) for index in range(40)] != first


@pytest.mark.parametrize("size", [2, 8])
def test_a_step_of_two_groups_sees_two_titles(size: int) -> None:
    titles = [number % 5 for number in range(400)]
    for epoch in range(5):
        order = GroupOrder(range(400), titles, size, size, 0)
        order.epoch = epoch
        found = [titles[position] for position in order]
        steps = [found[start : start + 2 * size] for start in range(0, 400, 2 * size)]
        assert all(len(set(step)) > 1 for step in steps)


@pytest.mark.parametrize("count", [3, 47, 50, 64])
def test_last_step_is_filled_with_the_first_examples_whatever_the_number_of_workers(count: int) -> None:
    orders = Order([5] * count, 32, 0), GroupOrder(range(count), [each % 3 for each in range(count)], 4, 32, 0)
    for order in orders:
        found = list(order)
        assert len(found) == len(order) == -(-count // 32) * 32
        assert set(found[:count]) == set(range(count))
        assert found[count:] == (found[:count] * 32)[: len(found) - count]


@pytest.mark.slow
def test_weights_are_those_of_any_number_of_workers(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    """47 and 50 examples in steps of 8: the last step of an epoch is filled up."""
    trainings: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for count, method in ((47, "sft"), (50, "choice")):
        examples = tmp_path / str(count)
        rows = [example_row(1 + n % 5, label=n % 3, title_id=f"t{n % 4}", example_id=f"e{n}") for n in range(count)]
        for split in ("train", "validation"):
            write_examples(examples / split, rows)
        for workers, flags in trainings.items():
            output = str(tmp_path / f"{method}-{count}-{workers}")
            flags.append({
                "examples": str(examples), "model": tiny_llama(True), "output": output, "method": method,
                "workers": workers, "learning_rate": 1e-3, "max_steps": 8, "batch_size": 8, "micro_batch": 2,
                "group_size": 2, "validation_size": 4, "lora_rank": 4,
            })  # fmt: skip
    for number, each in enumerate(trainings[1]):
        fit_in(tmp_path / f"scratch-{number}", from_flags(TrainConfig, **each))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29527"]
    command += ["-m", "tests.support.cpu_training", json.dumps(trainings[2])]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for one, two in zip(*trainings.values(), strict=True):
        alone, shared = (load_file(f"{each['output']}/adapter/adapter_model.safetensors") for each in (one, two))
        assert max(float(alone[name].abs().max()) for name in alone if "lora_B" in name) > 1e-3  # they start at 0
        difference = max(float((alone[name] - shared[name]).abs().max()) for name in alone)
        assert difference < 1e-5
