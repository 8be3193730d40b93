"""What a run is: `config.json` beside its result says, so that a run is resumed and never mixed with another."""

from typing import Any

from artsel_ray import storage
from artsel_ray.errors import InputError

CONFIG = "config.json"


def begin(output: str, run: dict[str, Any], config: dict[str, Any]) -> None:
    """Writes `config.json` at a run's start, or checks that the run found there is this one.

    Args:
        run: what decides the result. Two runs with the same may be mixed.

    Raises:
        InputError: if the output holds another run.
    """
    path = storage.join(output, CONFIG)
    if storage.exists(path):
        known = storage.read_json(path).get("run")
        if known != run:
            differing = sorted(key for key in run if not isinstance(known, dict) or known.get(key) != run[key])
            raise InputError(
                f"{output} holds another run, which differs in: {', '.join(differing)}; "
                "give another --output, or delete that one"
            )
    elif storage.find_files(output):
        raise InputError(f"{output} holds Parquet files but no {CONFIG} of a run; give another --output")
    else:
        storage.write_json(path, {"run": run, "config": config})
