"""An output folder belongs to one run, which is resumed and never mixed with another, and has one driver at a time.

`config.json` next to the result says which run it is; `_driver.json` says which driver writes to it. Whoever starts a
run again takes the output over, whether the last driver lives or not: a killed driver leaves no lock behind, and one
that lives learns at its next step that it was replaced, and stops. Until then both write the same objects, whole, under
the same names, so that nothing is lost.
"""

import datetime
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from artsel_ray import storage
from artsel_ray.errors import InputError

CONFIG = "config.json"
DRIVER = "_driver.json"
# Flags of engines that are no part of a run's identity. Those of precision change the model's id, which is one.
ENGINE_NOT_IDENTITY = (
    "engines", "gpus_per_engine", "gpu_memory_utilization", "max_num_seqs", "quantization", "kv_cache_dtype",
)  # fmt: skip
_EARLIER_LENGTH = 8192
FRAME = "frame"
"""Field of an identity: a digest of the token ids that all of a run's prompts share. Runs of earlier versions lack it.
"""


@dataclass(frozen=True)
class Run:
    """An output that this driver has claimed."""

    output: str
    driver: str

    def check(self) -> None:
        """Makes sure that this driver is still the one that writes here.

        Raises:
            InputError: if another one has claimed the output since.
        """
        held = storage.read_json(storage.join(self.output, DRIVER))
        if held["driver"] != self.driver:
            raise InputError(
                f"another job has taken over {self.output} at {held['started']}; it continues there, this one stops"
            )

    def publish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest: the last object of a run, and what its readers trust.

        Raises:
            InputError: if another driver has claimed the output.
        """
        self.check()
        storage.write_manifest(self.output, manifest)


def claim(output: str) -> Run:
    """Makes this driver the one that writes to an output."""
    run = Run(output, uuid.uuid4().hex)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    storage.write_json(storage.join(output, DRIVER), {"driver": run.driver, "started": started})
    return run


def begin(output: str, identity: dict[str, Any], config: dict[str, Any], added: Collection[str] = ()) -> Run:
    """Writes `config.json` at a run's start, or checks that the run found there is this one; then claims the output.

    Args:
        identity: what decides the result. Runs with the same identity may share an output.
        config: all flags, for people to read.
        added: fields of the identity that a run of an earlier version may lack.

    Raises:
        InputError: if the output holds another run.
    """
    path = storage.join(output, CONFIG)
    if not storage.exists(path) and storage.find_files(output):
        raise InputError(f"{output} holds Parquet files but no {CONFIG} of a run; give another --output")
    if not storage.create(path, storage.to_json({"run": identity, "config": config})):
        known = storage.read_json(path).get("run")
        other = {name: identity[name] for name in added} | (known if isinstance(known, dict) else {})
        if known is None or other != identity:
            differing = sorted(key for key in identity | other if other.get(key) != identity.get(key))
            raise InputError(
                f"{output} holds another run, which differs in: {', '.join(differing)}; "
                "give another --output, or delete that one"
            )
    return claim(output)


def refuse_other_jobs(output: str, own: set[str]) -> None:
    """Checks that an output without a run's identity is new, or this job's.

    Args:
        own: fields that `config.json` has in this job's outputs only.

    Raises:
        InputError: if another job's result, or a model, is there.
    """
    path = storage.join(output, CONFIG)
    known = storage.read_json(path) if storage.exists(path) else own
    if not isinstance(known, dict | set) or not own <= set(known):
        raise InputError(f"{output} holds another job's {CONFIG}; give another --output")


def identity_length(limit: int, model_length: int) -> int:
    """Returns --max-model-length for a run's identity: the earlier default for a model that takes no more than that."""
    return min(limit, max(model_length, _EARLIER_LENGTH))


def finished_parts(output: str) -> list[str]:
    """Returns the URIs of the parts that a finished run's manifest lists.

    Raises:
        InputError: if the run has no manifest.
    """
    manifest = storage.read_manifest(output)
    if manifest is None:
        raise InputError(f"{output} has no {storage.MANIFEST}: that run is not finished or does not exist")
    return [storage.join(output, part) for part in manifest["parts"]]


def prediction_files(uri: str) -> list[str]:
    """Lists the files that a finished run's manifest names, or else all files of a folder of predictions.

    Raises:
        InputError: if the run has not finished, a part is absent, or nothing is there.
    """
    manifest, config = storage.read_manifest(uri), storage.join(uri, CONFIG)
    if manifest is None and storage.exists(config) and {"run", "decoding"} & set(storage.read_json(config)):
        raise InputError(f"{uri}: the run has not finished (no {storage.MANIFEST}); run the same jobs/score.py again")
    if manifest is None or "parts" not in manifest:
        return storage.list_files(uri)
    files = [storage.join(uri, name) for name in manifest["parts"]]
    if absent := set(files) - set(storage.find_files(uri)):
        lacking = f"{len(absent)} of the {len(files)} files in {storage.MANIFEST} are not there, such as {min(absent)}"
        raise InputError(f"{uri}: {lacking}; copy the complete folder, or score again into another --output")
    return files
