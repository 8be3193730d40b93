"""The table of training methods, by the names that --method takes."""

from collections.abc import Callable

from transformers import Trainer

from artsel_ray.train.dpo import dpo_trainer
from artsel_ray.train.settings import Method
from artsel_ray.train.sft import sft_trainer
from artsel_ray.train.trainers import TrainingTask

# A new method is a module with such a function, a line here and a name in `Method`. The function returns a trainer of
# the task's model, whose collator renders the task's examples.
METHODS: dict[Method, Callable[[TrainingTask], Trainer]] = {"sft": sft_trainer, "dpo": dpo_trainer}
