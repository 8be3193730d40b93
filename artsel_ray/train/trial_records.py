"""The records of a sweep's trials: where they are, what they hold, and which trial is the best."""

from dataclasses import dataclass
from typing import Literal

from artsel_ray import storage
from artsel_ray.evaluation.metrics import headline
from artsel_ray.train.history import METRICS
from artsel_ray.train.validation import VALIDATION

TRIALS, RECORD = "trials", "trial.json"
Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended: a row of the table of trials."""

    learning_rate: float
    status: Status
    """`stopped` is a trial that ASHA ended early."""
    validation_ips: float | None = None
    validation_accuracy: float | None = None
    loss: float | None = None
    step: int | None = None
    """The last step that was validated."""
    seconds: float = 0.0
    error: str | None = None
    validation_snips_logged: float | None = None
    validation_snips_logged_random: float | None = None
    validation_ips_logged: float | None = None
    validation_effective_sample_size: float | None = None


def trial_output(output: str, rate: float) -> str:
    """Returns where a trial's training goes."""
    return storage.join(output, TRIALS, str(rate))


def read_record(output: str, rate: float) -> TrialRecord | None:
    """Returns the record of a trial, or None if it has not ended."""
    trained = trial_output(output, rate)
    # A manifest says that the training has finished, whatever was recorded before.
    if storage.read_manifest(trained) is not None:
        summary = storage.read_json(storage.join(trained, "summary.json"))
        step = max(entry["step"] for entry in summary["history"])
        metrics = {name: summary.get(name) for name in METRICS}
        return TrialRecord(rate, "finished", **metrics, step=step, seconds=summary["seconds"])
    ended = storage.join(trained, RECORD)
    return TrialRecord(**storage.read_json(ended)) if storage.exists(ended) else None


def selected_by(records: list[TrialRecord]) -> str:
    """Returns the metric that selects: logged SNIPS where all finished trials have it, else IPS with uniform π."""
    finished = [record for record in records if record.status == "finished"]
    has_logged = all(record.validation_snips_logged is not None for record in finished)
    return VALIDATION + headline(has_propensities=has_logged)


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """Returns the finished trial with the best metric of `selected_by`, then accuracy, then the first; None if none."""
    finished, name = [record for record in records if record.status == "finished"], selected_by(records)
    return max(finished, key=lambda record: (getattr(record, name), record.validation_accuracy), default=None)
