"""Where the Ray is that a job runs on, and whether it answers. Ray itself blocks or aborts where nothing answers."""

import os
import re
import socket
import subprocess
import sys
import time

from ray._common.utils import get_default_system_temp_dir  # Ray 2.60; the tests fail when these change
from ray._private.utils import read_ray_address

from artsel_ray.errors import InputError

_CONNECT_SECONDS, _PROBE_SECONDS, _BUSY_FACTOR = 4, 10, 6
_CLIENT_PORT = 10001  # of `ray://` without a port
# Connects as the job will, in a process of its own: some failures end a process, others wait for a minute.
_PROBE = "import ray; print(flush=True); ray.init(log_to_driver=False, configure_logging=False)"
# Ray's names of its sockets, with the longest process id: /session_2026-11-28_01-35-28_121123_1234567/sockets/…
_SOCKET_NAME_BYTES, _MAX_SOCKET_BYTES = 64, 107


def check_address() -> bool:
    """Makes sure that the cluster answers that the job is to connect to; returns False if it is to start its own.

    Raises:
        InputError: if no cluster is at the address, it does not accept this job, or none could be started here.
    """
    address = os.environ.get("RAY_ADDRESS") or read_ray_address() or "local"
    if address == "local":
        _check_socket_names()
        return False
    host, port = _host_and_port(address)
    try:
        if host:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        raise InputError(
            f"no Ray cluster at {address} (from RAY_ADDRESS or an earlier `ray start`); start it, or run "
            "`ray stop` and unset RAY_ADDRESS"
        ) from None
    _check_accepts(address)
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    """Returns what to connect to, with an empty host for `auto`."""
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        raise InputError(
            f"RAY_ADDRESS is {address}, the address for submitting jobs; name it RAY_API_SERVER_ADDRESS and use "
            "`ray job submit -- python jobs/…`, or set RAY_ADDRESS to the head's host:6379, or unset it"
        )
    if address == "auto":
        return "", 0
    host, colon, port = rest.partition("/")[0].rpartition(":")
    if scheme == "ray" and not colon:
        host, port = port, str(_CLIENT_PORT)
    if scheme not in ("", "ray") or not host or not port.isdigit() or int(port) >= 2**16:
        raise InputError(
            f"RAY_ADDRESS is {address}; it must be the head's host:port, such as 10.0.0.1:6379, ray://host:10001, "
            "auto, or local"
        )
    return host.strip("[]"), int(port)


def _check_accepts(address: str) -> None:
    # As the job's own, for Ray looks for a token by where the address comes from. A submitted job's packages stay out.
    environment = os.environ | {"RAY_NUM_REDIS_GET_RETRIES": "5"}
    environment.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)
    command, started = [sys.executable, "-P", "-c", _PROBE], time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as probe:
        assert probe.stdout is not None
        probe.stdout.readline()
        imported = time.monotonic() - started  # a second or two; on a busy machine, all that follows takes longer too
        try:
            _, errors = probe.communicate(timeout=max(_PROBE_SECONDS - imported, _BUSY_FACTOR * imported))
        except subprocess.TimeoutExpired:
            probe.kill()
            raise InputError(
                f"{address} does not answer as a Ray cluster within {time.monotonic() - started:.0f} s; RAY_ADDRESS "
                "must be the head's host:port, by default port 6379, and this machine one of the cluster's nodes"
            ) from None
    if probe.returncode:
        raise InputError(refusal(address, errors))


def refusal(address: str, stderr: str) -> str:
    """Returns in one line why a cluster did not accept a process that has printed this."""
    if "Unauthenticated" in stderr or "AuthenticationError" in stderr:
        return (
            f"the Ray cluster at {address} wants another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "~/.ray/auth_token to the cluster's token"
        )
    _, mismatch, versions = stderr.rpartition("Version mismatch:")
    if mismatch:
        return f"the Ray cluster at {address} has other versions; install the same here: {' '.join(versions.split())}"
    if "Could not find any running Ray instance" in stderr:
        return "RAY_ADDRESS is auto, and no Ray runs on this machine; start one with `ray start --head`, or unset it"
    errors = [line for line in stderr.splitlines() if re.match(r"[\w.]+(Error|Exception)\b", line)]
    reason = errors[-1] if errors else "connecting ended without a reason; is it the head's host:port, and its Ray?"
    return f"the Ray cluster at {address} does not accept this job: {reason}"


def _check_socket_names() -> None:
    folder = get_default_system_temp_dir()
    if too_long(folder, "ray"):
        name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
        most = _MAX_SOCKET_BYTES - _SOCKET_NAME_BYTES - len("/ray")
        raise InputError(
            f"{name} is {folder}, too long for the names of Ray's sockets; set RAY_TMPDIR to a local folder of at most "
            f"{most} letters, such as /tmp"
        )


def too_long(folder: str, name: str) -> bool:
    """Returns whether Ray's sockets would have too long names, if the folder `name` in this one is for Ray's files."""
    return len(os.fsencode(os.path.join(folder, name))) + _SOCKET_NAME_BYTES > _MAX_SOCKET_BYTES
