from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray.config import EngineSettings
from artsel_ray.engines.fake import FakeEngine
from artsel_ray.errors import InputError
from artsel_ray.runtime.engine_pool import (
    EngineActor,
    EngineStage,
    GetEngine,
    Item,
    Processed,
    actor_options,
    gpus_per_engine,
)
from artsel_ray.runtime.shards import MEMORY, RESTARTS, Shard
from artsel_ray.runtime.starts import Starts
from artsel_ray.runtime.task_result import unwrap, wrap
from artsel_ray.schema import INVALID_ROWS

ROWS = pa.table({"id": [1, 2]})
INVALID = INVALID_ROWS.empty_table()


def ask(value: Any, get_engine: GetEngine) -> Processed:
    """Asks the engine one question of three tokens."""
    get_engine().logprobs([np.array([1, 2, 3], dtype=np.int32)], [[4]])
    return Processed(ROWS, INVALID, {"units": 2, "rejected": 0})


@pytest.fixture
def starts(ray_cluster: None) -> Any:
    """A count of the engines' starts."""
    return Starts.remote()


def actor(
    starts: Any, load: GetEngine = FakeEngine, process: Callable[..., Processed] = ask, **stage: bool
) -> EngineActor:
    return EngineActor(EngineStage("ask", lambda: process, load, **stage), starts, 4, None, "P")


def item(index: int = 0) -> dict[str, Any]:
    return wrap(Item(index, "a shard's content", {"prepare_seconds": 0.5}))


def test_shard_carries_counts_usage_times_and_memory(starts: Any) -> None:
    shard = unwrap(actor(starts)(item(7)))
    assert isinstance(shard, Shard)
    assert (shard.index, shard.rows, shard.invalid) == (7, ROWS, INVALID)
    seconds = {name: shard.statistics.pop(f"{name}_seconds") for name in ("prepare", "load", "engine", "ask")}
    assert seconds["prepare"] == 0.5
    assert seconds["ask"] >= seconds["engine"] > 0
    assert shard.statistics.pop(MEMORY) > 0.01
    assert shard.statistics == {
        "units": 2, "rejected": 0, "prompt_tokens": 3, "cached_tokens": 0, "decoded_tokens": 1, RESTARTS: 0,
    }  # fmt: skip


def test_loading_counts_with_the_first_shard_only(starts: Any) -> None:
    holder = actor(starts)
    loads = [unwrap(holder(item(index))).statistics["load_seconds"] for index in range(2)]
    assert loads[0] > 0
    assert loads[1] == 0


def test_engine_is_loaded_when_first_needed_if_the_stage_says_so(starts: Any) -> None:
    def process(value: Any, get_engine: GetEngine) -> Processed:
        return ask(value, get_engine) if asks else Processed(ROWS, INVALID, {})

    asks, loads = False, []
    holder = actor(starts, lambda: loads.append(1) or FakeEngine(), process, starts_at_once=False)  # type: ignore[func-returns-value]
    assert unwrap(holder(item())).statistics["prompt_tokens"] == 0
    assert not loads
    asks = True
    assert [unwrap(holder(item())).statistics["prompt_tokens"] for _ in range(2)] == [3, 3]
    assert len(loads) == 1


@pytest.mark.parametrize(
    "error", [ValueError("no such\nmodel"), ImportError("no such model"), OSError("no such model")]
)
def test_engine_that_does_not_load_is_an_input_error(starts: Any, error: Exception) -> None:
    def load() -> FakeEngine:
        raise error

    found = unwrap(actor(starts, load)(item()))
    assert isinstance(found, InputError)
    assert str(found) == "the engine does not start: no such model"


def test_input_errors_of_all_stages_pass_through(starts: Any) -> None:
    def refuse(value: Any, get_engine: GetEngine) -> Processed:
        raise InputError("refused")

    assert str(unwrap(actor(starts, process=refuse)(item()))) == "refused"
    assert str(unwrap(actor(starts)(wrap(InputError("not prepared"))))) == "not prepared"


def test_engines_that_complete_no_shard_are_not_started_forever(starts: Any) -> None:
    def fail(value: Any, get_engine: GetEngine) -> Processed:
        raise InputError("not completed")

    # Ray makes an actor that died again: each of these is such a restart.
    outcomes = [str(unwrap(actor(starts, process=fail)(item()))) for _ in range(5)]
    assert outcomes[:4] == ["not completed"] * 4
    assert "the engine does not start: it crashed at every start before completing a shard" in outcomes[4]


def test_completed_shard_resets_the_count_of_starts(starts: Any) -> None:
    for _ in range(8):
        assert isinstance(unwrap(actor(starts)(item())), Shard)


def test_pool_divides_the_cpus(ray_cluster: None) -> None:
    options = actor_options(4, 0)
    assert (options["num_cpus"], options["num_gpus"], options["batch_size"]) == (0.5, 0, 1)
    assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
    assert actor_options(1, 0)["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"
    assert actor_options(3, 0)["num_cpus"] == 0.6666  # three times that is no more than there is


def gpus(monkeypatch: pytest.MonkeyPatch, *nodes: int) -> None:
    found = [{"CPU": 16.0, "GPU": float(node)} for node in nodes]
    monkeypatch.setattr("artsel_ray.runtime.engine_pool.node_resources", lambda: found)


def test_engine_gets_its_gpus_where_the_cluster_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4, 0)
    assert gpus_per_engine(EngineSettings(engines=4)) == 1
    assert gpus_per_engine(EngineSettings(engines=2, tensor_parallel=2)) == 2
    assert gpus_per_engine(EngineSettings(gpus_per_engine=0)) == 0
    gpus(monkeypatch, 0, 0)
    assert gpus_per_engine(EngineSettings()) == 0
    assert gpus_per_engine(EngineSettings(gpus_per_engine=0.5)) == 0.5


def test_tensor_parallelism_that_no_node_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2, 2, 1)
    with pytest.raises(InputError, match="--tensor-parallel 4 needs 4 GPUs on one node, and the nodes have 2, 2, 1; "):
        gpus_per_engine(EngineSettings(tensor_parallel=4))
    # The flag says that such nodes will come.
    assert gpus_per_engine(EngineSettings(tensor_parallel=4, gpus_per_engine=4)) == 4
