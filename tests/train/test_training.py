import pickle
import subprocess
import sys
from pathlib import Path

from artsel_ray.train.job import training_of
from artsel_ray.train.training import Fitted
from tests.support.training import train_config


def test_what_travels_to_and_from_workers_can_be_pickled(examples: str, tmp_path: Path) -> None:
    training = training_of(train_config(examples, "smollm2", tmp_path, layout="user_first"))
    for value in (training, Fitted([{"step": 1.0}], "", 2)):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301


def test_processes_that_pass_it_on_need_not_import_what_trains() -> None:
    code = "import sys, artsel_ray.train.training; print({'torch', 'transformers', 'trl'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
