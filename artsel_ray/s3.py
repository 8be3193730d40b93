"""What Arrow's S3 filesystem lacks: reads that survive `503 SlowDown`, writes that never replace an object, and the
reasons of errors.
"""

import io
import os
import random
import time
from typing import Any
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

# What Arrow says of an answer to a HEAD, whose errors have no text.
_NO_REASON = "No response body"
_REMEDIES = {
    "renew the keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile's": (
        "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId",
        "SignatureDoesNotMatch", "InvalidSecurity", "AuthFailure",
    ),
    "set AWS_REGION, or region=… in the URI, to the bucket's region": (
        "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    ),
    "check the bucket's name": ("NoSuchBucket", "InvalidBucketName"),
    "set the clock of this machine": ("RequestTimeTooSkewed", "RequestExpired"),
    "ask for permission to s3:ListBucket, s3:GetObject and, for outputs, s3:PutObject": (
        "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden",
    ),
}  # fmt: skip


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
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    if "allow_bucket_creation" in parse_qs(query):
        fs.create_dir(bucket)
    try:
        _client(fs, query, _PUT_ATTEMPTS).put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] in _OBJECT_EXISTS:
            return False
        raise OSError(first_line(error)) from None
    except BotoCoreError as error:
        raise OSError(first_line(error)) from None
    return True


def reason(error: Exception, fs: pafs.FileSystem, path: str, query: str) -> str:
    """Returns an error of a filesystem in one line; S3 is asked once more, with a GET, where it gave no reason.

    Args:
        path: `bucket/key`.
        query: as for `put_if_absent`.
    """
    line = first_line(error)
    if not isinstance(fs, pafs.S3FileSystem) or _NO_REASON not in str(error):
        return line
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    try:
        _client(fs, query, 1).get_object(Bucket=bucket, Key=key or "-", Range="bytes=0-0")
    except ClientError as refusal:
        code, text = (str(refusal.response["Error"].get(name, "")) for name in ("Code", "Message"))
        remedy = next((each for each, codes in _REMEDIES.items() if code in codes), None)
        if remedy:
            return f"S3 answers {code}{f' ({text})' * bool(text)}; {remedy}"
    except BotoCoreError as refusal:
        return f"{first_line(refusal)}; {next(iter(_REMEDIES))}"
    return f"{line} Check keys, region, bucket and permission"


def _client(fs: pafs.S3FileSystem, query: str, attempts: int) -> Any:
    """Returns boto3's client of a filesystem's server."""
    import boto3  # slow to import, and most runs never need it
    from botocore.config import Config

    options = {name: values[-1] for name, values in parse_qs(query).items()}
    endpoint = options.get("endpoint_override")
    other_server = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"mode": "standard", "max_attempts": attempts},
        s3={"addressing_style": "path" if other_server else "auto"},  # as Arrow does
        request_checksum_calculation="when_required",  # not every server knows the newer ones
    )
    return boto3.session.Session().client(
        "s3",
        region_name=fs.region,
        endpoint_url=f"{options.get('scheme', 'https')}://{endpoint}" if endpoint else None,
        config=config,
    )
