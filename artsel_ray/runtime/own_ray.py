"""A Ray that a job starts for itself, closed to the other users of the machine and to other machines."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants  # Ray 2.60; the tests fail when these change

from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_address import too_long

_UMASK = "ARTSEL_RAY_UMASK"


@contextmanager
def closed_to_others() -> Iterator[dict[str, str]]:
    """Within it, a Ray starts that listens on the loopback address alone; yields arguments for `ray.init`.

    Nobody else can read what this Ray's processes write. Its workers set the user's own umask when they import this
    package, so that outputs are as readable as what the user writes.

    Raises:
        InputError: if there can be no such folder.
        OSError: if the storage refuses one.
    """
    _close_token()
    # Without clusters, as on Windows and macOS, Ray takes the loopback address for the machine's own.
    had, umask = ray_constants.ENABLE_RAY_CLUSTER, os.umask(0o077)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[_UMASK] = False, oct(umask)
    try:
        yield {"_temp_dir": private_temp_dir()}
    finally:
        os.umask(umask)
        ray_constants.ENABLE_RAY_CLUSTER = had
        del os.environ[_UMASK]


def private_temp_dir() -> str:
    """Returns the folder for Ray's files: in the system's temporary folder if that is private, or else in one that is.

    Ray lets everybody write to its own folders, so that the one around them must keep others out.

    Raises:
        InputError: if another user owns the private folder, or its name is too long for Ray's sockets.
    """
    base = Path(get_default_system_temp_dir()).absolute()
    if not base.exists():
        base.mkdir(parents=True, mode=0o700)
    if _is_private(base):
        return str(base / "ray")
    private = base / f"ray{os.geteuid()}"
    with suppress(FileExistsError):
        private.mkdir(mode=0o700)
    if private.is_symlink() or private.stat().st_uid != os.geteuid():
        raise InputError(f"{private} is another user's; set RAY_TMPDIR to a short folder that only you can read")
    private.chmod(0o700)
    if too_long(str(private), "r"):
        raise InputError(
            f"{base} is open to other users, and {private} is too long for the names of Ray's sockets; set RAY_TMPDIR "
            "to a folder that only you can read (chmod 700), or to a shorter one"
        )
    return str(private / "r")


def _is_private(folder: Path) -> bool:
    state = folder.stat()
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _close_token() -> None:
    """Makes the token private with which this user's Rays accept jobs: Ray writes it for everybody to read."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    with suppress(OSError, RuntimeError):  # none, or not ours
        if token.stat().st_uid == os.geteuid():
            token.chmod(stat.S_IMODE(token.stat().st_mode) & 0o700)
