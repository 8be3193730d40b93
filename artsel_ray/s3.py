"""What Arrow's S3 filesystem lacks: reads that survive `503 SlowDown`, and writes that never replace an object."""

import io
import os
import random
import time
from urllib.parse import parse_qs

import pyarrow as pa
import pyarrow.fs as pafs

from artsel_ray.errors import first_line

# Arrow retries failed requests, but gives S3's client a buffer of exactly the read's size. The body of a `503 SlowDown`
# is larger than a small read and spoils the buffer: the read fails for good, which would end a run
# (https://github.com/apache/doris/pull/66557 reports the same).
_SPOILED_READ = "Failed to flush response stream"
_ATTEMPTS = 8
_FIRST_WAIT_SECONDS = 0.1

_OBJECT_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")
_PUT_ATTEMPTS = 10


def open_file(fs: pafs.FileSystem, path: str) -> pa.NativeFile:
    """Opens a file on any filesystem for random access.

    Raises:
        OSError: if it is absent or the storage does not answer; also from its reads.
    """
    file = fs.open_input_file(path)
    return pa.PythonFile(_RetriedFile(file), mode="r") if isinstance(fs, pafs.S3FileSystem) else file


class _RetriedFile(io.RawIOBase):
    """A file on S3 that repeats spoiled reads, up to eight times, each after about twice the wait."""

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
        position = self._file.tell()
        for attempt in range(_ATTEMPTS):
            try:
                return bytes(self._file.read(None if size < 0 else size))
            except OSError as error:
                if _SPOILED_READ not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
            self._file.seek(position)
        raise AssertionError("unreachable")


def put_if_absent(fs: pafs.S3FileSystem, path: str, content: bytes, query: str) -> bool:
    """Writes an object if there is none (`If-None-Match: *`), and returns whether; of several writers, one succeeds.

    Args:
        path: `bucket/key`.
        query: the URI's options, which Arrow's filesystem does not reveal: `endpoint_override=…&scheme=…`.

    Raises:
        OSError: if the storage refuses or does not answer.
    """
    import boto3  # slow to import, and most runs never need it
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    options = {name: values[-1] for name, values in parse_qs(query).items()}
    bucket, _, key = path.partition("/")
    if "allow_bucket_creation" in options:
        fs.create_dir(bucket)
    endpoint = options.get("endpoint_override")
    other_server = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"mode": "standard", "max_attempts": _PUT_ATTEMPTS},
        s3={"addressing_style": "path" if other_server else "auto"},  # as Arrow does
        request_checksum_calculation="when_required",  # not every server knows the newer ones
    )
    try:
        client = boto3.session.Session().client(
            "s3",
            region_name=fs.region,
            endpoint_url=f"{options.get('scheme', 'https')}://{endpoint}" if endpoint else None,
            config=config,
        )
        client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] in _OBJECT_EXISTS:
            return False
        raise OSError(first_line(error)) from None
    except BotoCoreError as error:
        raise OSError(first_line(error)) from None
    return True
