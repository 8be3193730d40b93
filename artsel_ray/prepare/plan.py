"""What every task of a run knows: the files, their slices, and the flags that decide the result."""

import time
from dataclasses import dataclass
from typing import Literal, NamedTuple

from artsel_ray import storage
from artsel_ray.config import Assets
from artsel_ray.data.checked_reader import RowRange, row_ranges
from artsel_ray.errors import InputError
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.runtime.run import CONFIG

Log = Literal["interactions", "impressions"]

LOGS: tuple[Log, ...] = ("interactions", "impressions")
SLICE_ROWS = 1 << 20
BUCKET_INTERACTIONS = 300_000
WORK_FOLDER = "_work"
_CLOCK_SKEW_SECONDS = 86_400


class Slice(NamedTuple):
    """Consecutive row groups of one file of a log."""

    table: Log
    range: RowRange


@dataclass(frozen=True)
class Plan:
    """What every task of a run knows."""

    output: str
    files: dict[str, list[str]]
    """The files of each input table."""
    slices: list[Slice]
    buckets: int
    """Number of groups of users; a user's group depends on the user's id only."""
    history_length: int
    split: Literal["hash", "time"]
    seed: int
    now_us: int
    """Rows with a later time, in microseconds since 1970, are invalid."""
    assets: Assets = "caption"

    def spill_file(self, kind: str, number: int) -> str:
        """Returns the URI of a file from one stage to the next."""
        return storage.join(self.output, WORK_FOLDER, f"{kind}-{number:06d}.arrow")

    def spill_files(self, table: Log) -> list[str]:
        """Returns the spill files of a log's slices, in the order of its rows."""
        return [self.spill_file("slice", n) for n, part in enumerate(self.slices) if part.table == table]

    def rows(self, table: Log) -> int:
        """Returns the number of rows of a log."""
        return sum(part.range.rows for part in self.slices if part.table == table)


def make_plan(config: PrepareConfig) -> Plan:
    """Finds the input's files and cuts its logs into slices of about `SLICE_ROWS` rows.

    Raises:
        InputError: if the input is incomplete, a file is broken or is not such a table, or a log has no rows.
    """
    if storage.exists(storage.join(config.input, CONFIG)) and storage.read_manifest(config.input) is None:
        raise InputError(
            f"{config.input} is incomplete: it has a {CONFIG} but no {storage.MANIFEST}; finish that run first"
        )
    files = {name: storage.list_files(storage.join(config.input, name)) for name in ("titles", "artworks", *LOGS)}
    slices = [
        Slice(table, found)
        for table in LOGS
        for found in row_ranges(files[table], table, SLICE_ROWS, whole_groups=True)
    ]
    interactions = sum(part.range.rows for part in slices if part.table == "interactions")
    plan = Plan(
        output=config.output,
        files=files,
        slices=slices,
        buckets=config.buckets or -(-interactions // BUCKET_INTERACTIONS),
        history_length=config.history_length,
        split=config.split,
        seed=config.seed,
        now_us=int((time.time() + _CLOCK_SKEW_SECONDS) * 1e6),
        assets=config.assets,
    )
    for table in LOGS:
        if not plan.rows(table):
            raise InputError(f"{storage.join(config.input, table)} has no rows; there is nothing to prepare")
    return plan
