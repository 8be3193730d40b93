"""Objects that only one of several writers can make.

pyarrow writes objects but not on condition that there is none: a local disk does it with a link, S3 with
`If-None-Match`.
"""

import os
import uuid
from urllib.parse import parse_qs

import pyarrow.fs as pafs

from artsel_ray import storage
from artsel_ray.errors import InputError

_THERE_ALREADY = ("PreconditionFailed", "ConditionalRequestConflict")
_ATTEMPTS = 10


def create(uri: str, content: bytes) -> bool:
    """Writes one object whole if none is there; of several writers at once one succeeds.

    On stores other than a local disk and S3 two that come within the same moment may both succeed.

    Returns:
        Whether it was written.

    Raises:
        InputError: if the storage refuses or does not answer.
    """
    if storage.exists(uri):
        return False
    fs, path = storage.filesystem(uri)
    if isinstance(fs, pafs.LocalFileSystem):
        return _create_local(uri, path, content)
    if isinstance(fs, pafs.S3FileSystem):
        return _create_s3(uri, fs, path, content)
    storage.write_object(uri, content)
    return True


def _create_local(uri: str, path: str, content: bytes) -> bool:
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.{uuid.uuid4().hex}"
    storage.write_object(temporary, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without links
        storage.write_object(uri, content)
    finally:
        os.unlink(temporary)
    return True


def _create_s3(uri: str, fs: pafs.S3FileSystem, path: str, content: bytes) -> bool:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    given = {name: values[-1] for name, values in parse_qs(uri.partition("?")[2]).items()}
    endpoint = given.get("endpoint_override")
    another = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    bucket, _, key = path.partition("/")
    settings = Config(
        retries={"mode": "standard", "max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path" if another else "auto"},  # as Arrow does
        request_checksum_calculation="when_required",  # not every server knows the newer ones
    )
    try:
        if "allow_bucket_creation" in given:
            fs.create_dir(bucket)
        client = boto3.session.Session().client(
            "s3",
            region_name=fs.region,
            endpoint_url=f"{given.get('scheme', 'https')}://{endpoint}" if endpoint else None,
            config=settings,
        )
        client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] in _THERE_ALREADY:
            return False
        raise InputError(f"cannot write {uri}: {storage.first_line(error)}") from None
    except (BotoCoreError, OSError) as error:
        raise InputError(f"cannot write {uri}: {storage.first_line(error)}") from None
    return True
