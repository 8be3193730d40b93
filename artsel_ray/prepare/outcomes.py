"""What became of every row: counts by outcome, which add up, and the invalid rows."""

from collections import Counter
from typing import Any

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.prepare.plan import LOGS, Plan
from artsel_ray.prepare.splits import SPLITS
from artsel_ray.runtime.shards import INVALID_FOLDER

Counts = Counter[str]
"""Rows by outcome: `not_engaged`, `examples/train`, `rejected/impressions/COLUMN: REASON` and so on."""


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
    """Stops a run whose impressions are too often invalid, or of which no example is left.

    Raises:
        InputError: naming the counts, the most frequent reason, and where the invalid rows are.
    """
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
    """Returns the outcomes for summary.json; those of the impressions add up."""
    reasons = {name: invalid_counts(counts, name) for name in ("titles", "artworks", *LOGS)}
    return {
        "impressions": plan.rows("impressions"),
        "examples": {name: counts[f"examples/{name}"] for name in reversed(SPLITS)},
        "other_kind": counts["other_kind"],
        "not_engaged": counts["not_engaged"],
        "repeated": counts["repeated"],
        "not_selected": counts["not_selected"],
        "rejected": {name: sum(found.values()) for name, found in reasons.items()},
        "reasons": reasons,
        "interactions": plan.rows("interactions"),
        "requests": counts["requests"],
        "buckets": plan.buckets,
    }
