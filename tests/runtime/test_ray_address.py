"""Every way to fail to connect is one line, soon."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artsel_ray.errors import InputError
from artsel_ray.runtime import ray_address
from artsel_ray.runtime.ray_address import check_address, refusal


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without a Ray."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_address, "read_ray_address", lambda: None)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_without_an_address_the_job_starts_its_own_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not check_address()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert not check_address()


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://127.0.0.1:8265", "the address for submitting jobs; name it RAY_API_SERVER_ADDRESS"),
        ("https://ray.example.com", "the address for submitting jobs"),
        ("127.0.0.1", "it must be the head's host:port"),
        ("head:http", "it must be the head's host:port"),
        (":6379", "it must be the head's host:port"),
        ("127.0.0.1:99999", "it must be the head's host:port"),
        ("anyscale://cluster", "it must be the head's host:port"),
        ("ray://", "it must be the head's host:port"),
        ("no-such-host.invalid:6379", "no Ray cluster at no-such-host.invalid:6379"),
    ],
)
def test_wrong_address_is_one_line(address: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError) as caught:
        check_address()
    assert named in str(caught.value)
    assert address in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
def test_address_where_nothing_listens_is_one_line(
    address: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address.format(free_port))
    with pytest.raises(InputError, match="no Ray cluster at"):
        check_address()


def test_address_of_something_else_is_given_up(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent_port}")
    monkeypatch.setattr(ray_address, "_PROBE_SECONDS", 3)
    monkeypatch.setattr(ray_address, "_BUSY_FACTOR", 1)
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"127.0.0.1:{silent_port} does not (answer as a Ray|accept this job)"):
        check_address()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("answers_after", [0.5, 60])
def test_cluster_that_answers_late_is_waited_for_where_all_is_slow(
    answers_after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing takes a second here, in place of Ray's import on a busy machine."""
    probe = f"import time; time.sleep(1); print(flush=True); time.sleep({answers_after})"
    monkeypatch.setattr(ray_address, "_PROBE", probe)
    monkeypatch.setattr(ray_address, "_PROBE_SECONDS", 0.1)
    monkeypatch.setattr(ray_address, "_BUSY_FACTOR", 2)
    if answers_after < 1:
        ray_address._check_accepts("127.0.0.1:6379")
    else:
        with pytest.raises(InputError, match=r"does not answer as a Ray cluster within [3-9] s"):
            ray_address._check_accepts("127.0.0.1:6379")


def test_auto_without_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Ray prints: on this machine other tests' Rays may run, which it would find.
    message = "ConnectionError: Could not find any running Ray instance. Please specify the one to connect to"
    assert refusal("auto", f"Traceback …\n{message}") == (
        "RAY_ADDRESS is auto, and no Ray runs on this machine; start one with `ray start --head`, or unset it"
    )


def test_refusals_say_what_differs() -> None:
    token = "gcs_client.cc:210: Failed to get ID: Unauthenticated: RPC error: InvalidAuthToken\nConnectionError"
    assert "the Ray cluster at h:1 wants another token; set RAY_AUTH_MODE=token" in refusal("h:1", token)
    missing = "ray.exceptions.AuthenticationError: Token authentication is enabled but no token was found"
    assert "wants another token" in refusal("h:1", missing)
    versions = (
        "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.10.1\n"
        "This process was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"
    )
    assert refusal("h:1", versions) == (
        "the Ray cluster at h:1 has other versions; install the same here: The cluster was started with: Ray: 2.59.0 "
        "Python: 3.10.1 This process was started with: Ray: 2.60.0 Python: 3.11.2"
    )
    assert refusal("h:1", "Traceback\nRuntimeError: no node here\n[2026 W 1 1] core.cc: bye") == (
        "the Ray cluster at h:1 does not accept this job: RuntimeError: no node here"
    )
    assert "connecting ended without a reason" in refusal("h:1", "*** SIGABRT received ***\n    @ 0x7f  abort")


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_folder_that_is_too_long_for_sockets_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv(name, "/tmp/" + "x" * 34)  # 39 letters
    assert not check_address()
    monkeypatch.setenv(name, "/tmp/" + "x" * 35)
    with pytest.raises(InputError, match=f"{name} is /tmp/x+, too long for the names of Ray's sockets; set RAY_TMPDIR"):
        check_address()


def test_address_of_an_earlier_ray_start_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    # Neither function is part of Ray's API: this fails when a new Ray moves them or the file.
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("10.0.0.1:6379")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(tmp_path))
        assert ray_address.read_ray_address() == "10.0.0.1:6379"
        assert ray_address.get_default_system_temp_dir() == os.environ["RAY_TMPDIR"]


@pytest.mark.usefixtures("ray_cluster")
def test_running_cluster_accepts_this_process_and_no_other_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    assert check_address()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    with pytest.raises(InputError, match="wants another token"):
        check_address()
