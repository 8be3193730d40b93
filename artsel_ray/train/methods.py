"""The table of training methods, by the names that --method takes."""

from typing import Protocol

from transformers import Trainer

from artsel_ray.train.dpo import dpo_trainer
from artsel_ray.train.settings import Method
from artsel_ray.train.sft import sft_trainer
from artsel_ray.train.trainers import TrainingTask


class MakeTrainer(Protocol):
    """A way to train. A new one is a module with such a function, a line in `METHODS` and a name in `Method`."""

    def __call__(self, task: TrainingTask, /) -> Trainer:
        """Returns a trainer of the task's model, whose collator renders the task's examples."""
        ...


METHODS: dict[Method, MakeTrainer] = {
    "sft": sft_trainer,
    "dpo": dpo_trainer,
}
