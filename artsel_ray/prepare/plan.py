"""What every task of a run knows, and what became of every row: counts by outcome, which add up, and invalid rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, Assets, RowLimits
from artsel_ray.data.catalog import TITLE_COLUMNS, artwork_columns
from artsel_ray.data.checked_reader import GROUP_FILES, RowRange, group_ranges
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import read_footers
from artsel_ray.errors import InputError
from artsel_ray.prepare.settings import Split
from artsel_ray.prepare.splits import HELD_OUT, SPLITS
from artsel_ray.runtime.run import CONFIG
from artsel_ray.runtime.shards import INVALID_FOLDER
from artsel_ray.schema import TABLES

Log = Literal["interactions", "impressions"]
LOGS: tuple[Log, ...] = ("interactions", "impressions")
SLICE_ROWS = 1 << 20
WORK_FOLDER = "_work"

Counts = Counter[str]
"""Rows by outcome: `not_engaged`, `examples/train`, `rejected/impressions/COLUMN: REASON` and so on."""


class Slice(NamedTuple):
    """Consecutive row groups of one file of a log, or of several small ones."""

    table: Log
    ranges: tuple[RowRange, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(each.rows for each in self.ranges)


@dataclass(frozen=True)
class Plan:
    """What every task of a run knows."""

    output: str
    files: dict[str, list[str]]
    slices: list[Slice]
    buckets: int
    """Number of groups of users; a user's group depends on the user's id only."""
    history_length: int
    split: Split
    seed: int
    now_us: int
    """Rows with a later time, in microseconds since 1970, are invalid."""
    assets: Assets = "caption"
    timezone: str | None = None
    """Time zone of the logs' timestamps without one."""
    limits: RowLimits = DEFAULT_LIMITS
    group_x: np.ndarray | None = None
    """Each title's group in a split by title, known after the first stage; None: all titles are known ones."""

    def spill_file(self, kind: str, number: int) -> str:
        """Returns the URI of a file from one stage to the next."""
        return storage.join(self.output, WORK_FOLDER, f"{kind}-{number:06d}.arrow")

    def spill_files(self, table: Log) -> list[str]:
        """Returns the spill files of a log's slices, in the order of its rows."""
        return [self.spill_file("slice", n) for n, part in enumerate(self.slices) if part.table == table]

    def rows(self, table: Log) -> int:
        """Returns the number of rows of a log."""
        return sum(part.rows for part in self.slices if part.table == table)


def find_slices(
    folder: str, assets: Assets = "caption", timezone: str | None = None
) -> tuple[dict[str, list[str]], list[Slice]]:
    """Returns the input's files by table, and its logs cut into slices of about `SLICE_ROWS` rows.

    An incomplete input, a log without rows, and a file that is broken or is no such table, are each an `InputError`;
    what is wrong with the columns of any table is one `InputError`.
    """
    if storage.exists(storage.join(folder, CONFIG)) and storage.read_manifest(folder) is None:
        raise InputError(f"{folder} is incomplete: it has a {CONFIG} but no {storage.MANIFEST}; finish that run first")
    files = {name: storage.list_files(storage.join(folder, name)) for name in ("titles", "artworks", *LOGS)}
    footers = {table: read_footers(found) for table, found in files.items()}
    read = {"titles": TITLE_COLUMNS, "artworks": artwork_columns(assets)}
    check_footers(
        footers, {name: [TABLES[name].field(each) for each in names] for name, names in read.items()}, timezone
    )
    slices = []
    for table in LOGS:
        found = group_ranges(footers[table], SLICE_ROWS)
        if not found:
            raise InputError(f"{storage.join(folder, table)} has no rows; there is nothing to prepare")
        slices += [Slice(table, each) for each in _grouped(found)]
    return files, slices


def _grouped(ranges: list[RowRange]) -> list[tuple[RowRange, ...]]:
    """Joins small ranges that follow one another."""
    groups: list[tuple[RowRange, ...]] = [()]
    for each in ranges:
        rows = sum(other.rows for other in groups[-1])
        if groups[-1] and (rows + each.rows > SLICE_ROWS or len(groups[-1]) == GROUP_FILES):
            groups.append(())
        groups[-1] += (each,)
    return groups


def write_invalid(plan: Plan, name: str, invalid: pa.Table) -> Counts:
    """Writes invalid rows, if there are any, as one part, and counts them by table and reason."""
    if invalid.num_rows:
        uri = storage.join(plan.output, INVALID_FOLDER, f"part-{name}.parquet")
        storage.write_table(uri, invalid, "invalid_rows")
    grouped = invalid.group_by(["table", "column", "reason"]).aggregate([("row", "count")]).to_pylist()
    return Counter({f"rejected/{row['table']}/{row['column']}: {row['reason']}": row["row_count"] for row in grouped})


def invalid_counts(counts: Counts, table: str) -> dict[str, int]:
    """Returns the number of a table's invalid rows by `COLUMN: REASON`."""
    prefix = f"rejected/{table}/"
    return {name.removeprefix(prefix): counts[name] for name in sorted(counts) if name.startswith(prefix)}


def check_counts(plan: Plan, counts: Counts, max_reject_rate: float) -> None:
    """Raises an `InputError` if impressions are too often invalid, or no example is left."""
    reasons, impressions = invalid_counts(counts, "impressions"), plan.rows("impressions")
    invalid, folder = sum(reasons.values()), storage.join(plan.output, INVALID_FOLDER)
    if invalid > max_reject_rate * impressions:
        reason = max(reasons, key=lambda each: reasons[each])
        raise InputError(
            f"{invalid:,} of {impressions:,} impressions were rejected, more than --max-reject-rate "
            f"{max_reject_rate:g} allows; the most frequent reason is '{reason}' ({reasons[reason]:,}), and all of "
            f"them are in {folder}. Fix the data or raise the limit"
        )
    if not counts["pairs"]:
        raise InputError(
            f"none of {impressions:,} impressions can become an example: {counts['not_engaged']:,} were not engaged "
            f"with, {invalid:,} were rejected; the reasons are in {folder}"
        )


def summarize(plan: Plan, counts: Counts) -> dict[str, Any]:
    """Returns the outcomes for summary.json."""
    reasons = {name: invalid_counts(counts, name) for name in ("titles", "artworks", *LOGS)}
    return {
        "impressions": plan.rows("impressions"),
        "examples": {name: counts[f"examples/{name}"] for name in reversed(SPLITS)},
        **({"new_titles": _new_titles(plan.group_x, counts)} if plan.group_x is not None else {}),
        **{name: counts[name] for name in ("other_kind", "not_engaged", "repeated", "not_selected")},
        "rejected": {name: sum(found.values()) for name, found in reasons.items()},
        "reasons": reasons,
        "interactions": plan.rows("interactions"),
        "requests": counts["requests"],
        "buckets": plan.buckets,
    }


def _new_titles(group_x: np.ndarray, counts: Counts) -> dict[str, Any]:
    return {
        name: {"titles": int((group_x == group).sum()), "examples": counts[f"new_titles/{name}"]}
        for group, name in HELD_OUT.items()
    }
