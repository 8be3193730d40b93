"""A partition-by-key through storage: the exchange between two stages of a job.

Every slice of the input becomes one object, its rows sorted by partition with one Arrow record batch for each;
a reader of one partition then fetches only that partition's batches out of all objects. Nothing is held in
memory beyond one slice or one partition, and what was written stays: a stage that died goes on from there. This
is the sort-based shuffle of MapReduce and of Spark, with storage in place of the workers' disks.
"""

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.s3 import open_file

_PARTITIONS = b"partitions"


def write_partitions(uri: str, table: pa.Table, partition: np.ndarray, partitions: int) -> None:
    """Writes one slice's rows as one object, whole or not at all, ordered by partition.

    Rows of the same partition keep their order. Partitions without rows take no space.

    Args:
        uri: the object; written as an Arrow IPC file with LZ4 compression.
        table: the slice, small enough to be held in memory a few times.
        partition: each row's partition, integers in `[0, partitions)`.
        partitions: how many there are.

    Raises:
        InputError: if the storage refuses.
        ValueError: if a row's partition is out of range, or not every row has one.
    """
    if len(partition) != table.num_rows:
        raise ValueError(f"{len(partition)} partitions for {table.num_rows} rows")
    if len(partition) and not 0 <= partition.min() <= partition.max() < partitions:
        raise ValueError(f"a row's partition must be in [0, {partitions})")
    table = table.combine_chunks().take(np.argsort(partition, kind="stable"))
    ends = np.cumsum(np.bincount(partition, minlength=partitions))
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
    storage.write_object(uri, sink.getvalue())


def read_partition(uris: list[str], partition: int) -> pa.Table:
    """Returns one partition's rows out of all objects, in the order of the objects and then of their rows.

    Args:
        uris: objects of `write_partitions`, at least one, all with the same columns.

    Raises:
        InputError: if an object is absent or broken.
    """
    tables = [_read(uri, partition) for uri in uris]
    return pa.concat_tables(tables)


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
        raise InputError(f"cannot read the work object {uri}: {storage.first_line(error)}; run again") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"the work object {uri} is broken: {error}; delete the work folder, run again") from None
