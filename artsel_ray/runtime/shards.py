"""Which shards of a run are done already."""

import json
import re

from artsel_ray import storage

_PART = re.compile(r"part-(\d{6})\.parquet$")
_STATISTICS = b"artsel_ray"

MEMORY = "engine_memory_gib"
"""The statistic of which a run's is the most of its shards', not their sum."""

# The jobs that resume call it here.
describe_files = storage.describe_files


def part_name(shard: int) -> str:
    """Returns the name of a shard's object, in the output and in its folder of rejected rows."""
    return f"part-{shard:06d}.parquet"


def done(output: str) -> set[int]:
    """Returns the shards whose objects are there. An object is written whole, so that to be there is to be done."""
    matches = (_PART.search(file.partition("?")[0]) for file in storage.find_files(output) if "/rejected/" not in file)
    return {int(match[1]) for match in matches if match}


def statistics_metadata(statistics: dict[str, float]) -> dict[str, str]:
    """Returns a shard's statistics as metadata for its object."""
    return {_STATISTICS.decode(): json.dumps(statistics)}


def read_statistics(output: str, shard: int) -> dict[str, float]:
    """Reads a done shard's statistics out of its object."""
    metadata = storage.open_parquet(storage.join(output, part_name(shard))).schema_arrow.metadata
    return json.loads(metadata[_STATISTICS])
