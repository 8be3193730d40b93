"""A shuffle through storage: a partition by key between two stages of a job.

Each task of the first stage writes its rows as one spill file, sorted by partition, with Arrow record batches of one
partition each. A task of the second stage reads only its partition's batches from all spill files. Memory holds one
input slice or one partition at a time, and spill files remain, so that a stopped stage can be resumed. This is the
sort-based shuffle of MapReduce and Spark, with storage in place of the workers' disks.
"""

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.errors import InputError, first_line
from artsel_ray.s3 import open_file

_PARTITIONS = b"partitions"


def write_partitions(uri: str, table: pa.Table, partition: np.ndarray, partitions: int) -> None:
    """Writes rows as one spill file, an Arrow IPC file with LZ4 compression, sorted by partition.

    Rows of one partition, each an integer in `[0, partitions)`, keep their order. Partitions without rows take no
    space. A few copies of the table must fit into memory.
    """
    if len(partition) != table.num_rows:
        raise ValueError(f"{len(partition)} partitions for {table.num_rows} rows")
    if len(partition) and not 0 <= partition.min() <= partition.max() < partitions:
        raise ValueError(f"a row's partition must be in [0, {partitions})")
    table = table.combine_chunks().take(np.argsort(partition, kind="stable"))
    ends = np.cumsum(np.bincount(partition, minlength=partitions))
    # Which partition each batch belongs to goes into the schema's metadata, which is read first.
    batches, owners = [], []
    for number in np.flatnonzero(np.diff(ends, prepend=0)):
        start = ends[number - 1] if number else 0
        parts = table.slice(start, ends[number] - start).combine_chunks().to_batches()
        batches += parts
        owners += [str(number)] * len(parts)
    schema = table.schema.with_metadata({_PARTITIONS: ",".join(owners)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for batch in batches:
            writer.write_batch(batch)
    storage.write_object(uri, sink.getvalue(), is_private=True)  # histories, which are no output


def read_partition(uris: list[str], partition: int) -> pa.Table:
    """Returns a partition's rows from one or more files, in their order; an absent or broken one is an `InputError`."""
    return pa.concat_tables([_read(uri, partition) for uri in uris])


def _read(uri: str, partition: int) -> pa.Table:
    fs, path = storage.filesystem(uri)
    try:
        with open_file(fs, path) as stream:
            reader = pa.ipc.open_file(stream)
            owners = reader.schema.metadata[_PARTITIONS].decode()
            numbers = np.array(owners.split(",") if owners else [], dtype=np.int64)
            batches = [reader.get_batch(int(index)) for index in np.flatnonzero(numbers == partition)]
            return pa.Table.from_batches(batches, reader.schema.remove_metadata())
    except OSError as error:
        raise InputError(
            f"cannot read the spill file {uri}: {storage.reason(error, uri)}; run the command again"
        ) from None
    except pa.ArrowInvalid as error:
        message = f"the spill file {uri} is broken: {first_line(error)}; delete its folder and run the command again"
        raise InputError(message) from None
