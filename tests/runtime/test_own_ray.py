import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from artsel_ray.errors import InputError
from artsel_ray.runtime.own_ray import closed_to_others, private_temp_dir

# In a process of its own: prints the umask of driver and workers, and what each of Ray's processes listens on.
_START = """
import os, psutil, ray
from artsel_ray.runtime.ray_cluster import start_ray
def umask():  # of this script: workers cannot import the tests
    had = os.umask(0o077)
    os.umask(had)
    return had
os.umask(0o027)
start_ray(dashboard=True)
print(umask(), ray.get(ray.remote(umask).remote()), os.environ.get("ARTSEL_RAY_UMASK"))
print(ray._private.worker.global_worker.node.get_session_dir_path())
me = psutil.Process()
for process in (me, *me.children(recursive=True)):
    for each in process.net_connections(kind="inet"):
        if each.status == "LISTEN":
            print("listens", each.laddr.ip)
"""


def umask() -> int:
    had = os.umask(0o077)
    os.umask(had)
    return had


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short name that is open to all users, as /tmp is."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_for_rays_files_is_private(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = shared / f"ray{os.geteuid()}"
    for _ in range(2):
        assert private_temp_dir() == str(own / "r")
        assert mode(own) == 0o700
        own.chmod(0o755)  # as another version may have made it
    # A folder that nobody else can read needs none inside.
    shared.chmod(0o700)
    assert private_temp_dir() == str(shared / "ray")
    monkeypatch.setenv("RAY_TMPDIR", str(shared / "new"))
    assert private_temp_dir() == str(shared / "new/ray")
    assert mode(shared / "new") == 0o700


def test_folder_that_another_user_could_have_made_is_refused(shared: Path, tmp_path: Path) -> None:
    (shared / f"ray{os.geteuid()}").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"ray\d+ is another user's; set RAY_TMPDIR"):
        private_temp_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_folder_of_another_user_is_refused(shared: Path) -> None:
    (shared / "ray0").mkdir()
    os.chown(shared / "ray0", 12345, 12345)
    with pytest.raises(InputError, match=r"ray0 is another user's; set RAY_TMPDIR"):
        private_temp_dir()


def test_shared_folder_that_is_too_long_is_one_line(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / ("x" * (39 - len(f"{shared}/")))  # as many letters as a private folder may have
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    folder.chmod(0o755)
    with pytest.raises(InputError, match=r"is open to other users, and .* is too long for the names of Ray's sockets"):
        private_temp_dir()
    folder.chmod(0o700)
    assert private_temp_dir() == str(folder / "ray")


def test_driver_keeps_its_umask_and_token_becomes_private(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, before = tmp_path / "token", umask()
    token.write_text("b" * 64)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with closed_to_others():
        assert umask() == 0o077
        assert int(os.environ["ARTSEL_RAY_UMASK"], 8) == before
    assert umask() == before
    assert "ARTSEL_RAY_UMASK" not in os.environ
    assert mode(token) == 0o600


@pytest.mark.slow
def test_own_ray_is_closed_to_other_users_and_machines(shared: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", _START], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    masks, session, *listens = [line for line in done.stdout.splitlines() if "dashboard" not in line]
    assert masks == f"{0o027} {0o027} None"
    assert {socket.inet_ntoa(socket.inet_aton(line.split()[1].removeprefix("::ffff:"))) for line in listens} == {
        "127.0.0.1"
    }
    assert len(listens) > 5
    assert Path(session).is_relative_to(shared / f"ray{os.geteuid()}")
    # Ray opens its own folders to everybody; nobody else gets to them.
    assert mode(shared / f"ray{os.geteuid()}") == 0o700
    logs = [file for file in Path(session, "logs").iterdir() if file.is_file()]
    assert len(logs) > 5
    assert not [file for file in logs if mode(file) & 0o077]
