import importlib
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.exceptions import OutOfMemoryError, RaySystemError

from artsel_ray.errors import InputError
from artsel_ray.runtime.task_result import COLUMN, as_input_error, capture, map_tasks, results, unwrap, wrap


def test_ray_cannot_log_a_wrapped_object() -> None:
    batch = wrap("what a user watched")
    with pytest.raises(pa.ArrowInvalid) as caught:  # Ray Data logs this message
        pa.infer_type(batch[COLUMN])
    assert "watched" not in str(caught.value)
    assert "watched" not in repr(batch)
    assert unwrap(batch) == "what a user watched"


def test_capture_returns_input_errors_and_raises_all_others() -> None:
    def fail(error: Exception) -> None:
        raise error

    assert capture(max, 1, 2) == 2
    assert str(capture(fail, InputError("wrong"))) == "wrong"
    with pytest.raises(KeyError):
        capture(fail, KeyError("a bug"))


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_return_any_object_for_each_item() -> None:
    assert sorted(map_tasks(["a", "bc"], lambda text: (len(text), {text}))) == [(1, {"a"}), (2, {"bc"})]
    assert sorted(map_tasks(3, lambda index: index * index)) == [0, 1, 4]


@pytest.mark.usefixtures("ray_cluster")
def test_input_error_of_a_task_is_raised_with_its_own_message() -> None:
    def check(item: str) -> str:
        if item == "b":
            raise InputError("b is wrong; use a")
        return item

    with pytest.raises(InputError, match=r"^b is wrong; use a$"):
        list(map_tasks(["a", "b"], check))


@pytest.mark.usefixtures("ray_cluster")
def test_task_that_a_worker_cannot_import_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_the_driver.py").write_text("def square(index):\n    return index * index\n")
    monkeypatch.syspath_prepend(tmp_path)
    square = importlib.import_module("of_the_driver").square
    with pytest.raises(InputError, match=r"cannot import this program: ModuleNotFoundError: .*of_the_driver"):
        list(map_tasks(2, square))


def test_tasks_killed_for_memory_are_one_line_and_other_errors_stay() -> None:
    assert "Ray's memory monitor has killed the same task" in str(as_input_error(OutOfMemoryError("killed")))
    error = RaySystemError("KeyError: 'a bug'")
    assert as_input_error(error) is error


@pytest.mark.usefixtures("ray_cluster")
def test_results_unwraps_what_actors_return() -> None:
    dataset = ray.data.range(4, override_num_blocks=4).map_batches(lambda batch: wrap(int(batch["id"][0])))
    assert sorted(results(dataset)) == [0, 1, 2, 3]
