"""What a run is, and whose: a run is resumed, never mixed with another, and has one driver at a time.

`config.json` beside its result says what it is; `_driver.json` who writes to it. A run that is started again takes the
output over, dead or alive as its last driver may be: no lock is left behind by one that was killed, and one that lives
on learns at its next step that it has been followed, and stops. Two drivers of one run write the same objects, whole,
under the same names, so that nothing is lost while both are at it.
"""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from artsel_ray import storage
from artsel_ray.conditional_create import create
from artsel_ray.errors import InputError

CONFIG = "config.json"
DRIVER = "_driver.json"


@dataclass(frozen=True)
class Run:
    """An output that this driver has taken."""

    output: str
    driver: str

    def check(self) -> None:
        """Makes sure that this driver is still the one that writes here.

        Raises:
            InputError: if another one has taken the output since.
        """
        held = storage.read_json(storage.join(self.output, DRIVER))
        if held["driver"] != self.driver:
            raise InputError(
                f"another job has taken over {self.output} at {held['started']}; it goes on there, this one stops"
            )

    def publish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest: the last object of a run, and what its readers trust.

        Raises:
            InputError: if another driver has taken the output.
        """
        self.check()
        storage.write_manifest(self.output, manifest)


def take(output: str) -> Run:
    """Makes this driver the one that writes to an output."""
    run = Run(output, uuid.uuid4().hex)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    storage.write_json(storage.join(output, DRIVER), {"driver": run.driver, "started": started})
    return run


def parts(output: str) -> list[str]:
    """Returns the URIs of the parts that a finished run's manifest lists.

    Raises:
        InputError: if the run has no manifest.
    """
    manifest = storage.read_manifest(output)
    if manifest is None:
        raise InputError(f"{output} has no {storage.MANIFEST}: that run is not over, or not there")
    return [storage.join(output, part) for part in manifest["parts"]]


def begin(output: str, run: dict[str, Any], config: dict[str, Any]) -> Run:
    """Writes `config.json` at a run's start, or checks that the run found there is this one; then takes the output.

    Args:
        run: what decides the result. Two runs with the same may be mixed.

    Raises:
        InputError: if the output holds another run.
    """
    path = storage.join(output, CONFIG)
    if not storage.exists(path) and storage.find_files(output):
        raise InputError(f"{output} holds Parquet files but no {CONFIG} of a run; give another --output")
    if not create(path, storage.to_json({"run": run, "config": config})):
        known = storage.read_json(path).get("run")
        if known != run:
            differing = sorted(key for key in run if not isinstance(known, dict) or known.get(key) != run[key])
            raise InputError(
                f"{output} holds another run, which differs in: {', '.join(differing)}; "
                "give another --output, or delete that one"
            )
    return take(output)
