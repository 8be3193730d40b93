"""Reads from S3 that are tried again where Arrow gives up.

Arrow retries what fails, but it hands S3's client a buffer of just the size that it reads. The body of a `503 SlowDown`
is larger than a small read: it spoils the buffer, and the answer is "Failed to flush response stream", for good. A
server that asks for patience would end a night (https://github.com/apache/doris/pull/66557 tells of the same).
"""

import io
import random
import time

import pyarrow as pa
import pyarrow.fs as pafs

_SPOILED = "Failed to flush response stream"
_ATTEMPTS, _FIRST_WAIT_SECONDS = 8, 0.1


def open_file(fs: pafs.FileSystem, path: str) -> pa.NativeFile:
    """Opens a file for reading anywhere in it.

    Raises:
        OSError: if it is absent or the storage does not answer; so do its reads.
    """
    file = fs.open_input_file(path)
    return pa.PythonFile(_Retried(file), mode="r") if isinstance(fs, pafs.S3FileSystem) else file


class _Retried(io.RawIOBase):
    """A file on S3 whose spoiled reads are made again, up to eight times, each after about twice the wait."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()
        for attempt in range(_ATTEMPTS):
            try:
                return bytes(self._file.read(None if size < 0 else size))
            except OSError as error:
                if _SPOILED not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
            self._file.seek(place)
        raise AssertionError("unreachable")
