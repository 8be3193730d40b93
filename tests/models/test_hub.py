"""What the hub's answers become, with a real client and a server in the hub's place."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from artsel_ray.errors import InputError
from artsel_ray.models.hub import download

SHA = "0" * 40
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle"}
REFUSALS = {
    "absent": (401, "RepoNotFound"), "gated": (403, "GatedRepo"), "forbidden": (403, ""), "private": (401, ""),
    "broken": (503, ""), "moved": (404, "RevisionNotFound"),
}  # fmt: skip
# One process for all names: the client reads its settings when it is imported.
ASK = """
import json, sys
from artsel_ray.errors import InputError
from artsel_ray.models.hub import download
answers = {}
for name in sys.argv[1:]:
    try:
        answers[name] = sorted(file.name for file in download(name).iterdir())
    except InputError as error:
        answers[name] = str(error)
print(json.dumps(answers))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one complete model, and refuses others by their names."""

    def do_GET(self) -> None:
        kind, _, path = self.path.removeprefix("/api/models/").removeprefix("/").removeprefix("owner/").partition("/")
        if kind in REFUSALS and not (kind == "gated" and self.path.startswith("/api/")):
            status, code = REFUSALS[kind]
            self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        elif path.startswith("tree/"):
            listed = [{"type": "file", "path": name, "size": len(text), "oid": name} for name, text in FILES.items()]
            self._send(200, json.dumps(listed).encode())
        elif path.startswith("resolve/"):
            name = path.rpartition("/")[2]
            self._send(200, FILES[name], {"ETag": f'"{name}"', "X-Repo-Commit": SHA})
        else:
            self._send(200, json.dumps({"id": f"owner/{kind}", "sha": SHA, "siblings": []}).encode())

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of a server in the hub's place."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(names: list[str], home: Path, **env: str) -> dict[str, object]:
    settings = {**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **env}
    settings.pop("HF_TOKEN", None)
    if "HF_HUB_OFFLINE" not in env:
        settings.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", ASK, *names], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hub_that_refuses_says_what_to_do(hub: str, tmp_path: Path) -> None:
    names = [f"owner/{kind}" for kind in ("complete", *REFUSALS)]
    got = ask(names, tmp_path, HF_ENDPOINT=hub)
    assert got["owner/complete"] == ["config.json", "model.safetensors"]
    for kind, expected in {
        "absent": "has no such model, or it is private; check the name, and for a private one log in",
        "gated": f"it is gated; accept its license at {hub}/owner/gated, then log in with `hf auth",
        "forbidden": f"refuses access (403); accept the model's license at {hub}/owner/forbidden",
        "private": "log in with `hf auth login`, or set HF_TOKEN",
        "broken": "answers 503; try again later",
        "moved": "answers 404; try again later",
    }.items():
        assert expected in str(got[f"owner/{kind}"]), got
        assert f"model 'owner/{kind}' is neither 'smollm2', nor a folder, nor available from the hub" in str(
            got[f"owner/{kind}"]
        )


def test_hub_that_cannot_be_reached_or_stored_says_what_to_do(hub: str, tmp_path: Path) -> None:
    nobody = ask(["owner/complete"], tmp_path / "a", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in str(nobody["owner/complete"])
    offline = ask(["owner/complete", "not//a/name"], tmp_path / "a", HF_ENDPOINT=hub, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, and it is not complete in" in str(offline["owner/complete"])
    assert "there is no such folder, and a hub's name looks like owner/name" in str(offline["not//a/name"])
    unwritable = ask(["owner/complete"], Path("/proc/none"), HF_ENDPOINT=hub)
    assert "cannot write to the hub's cache" in str(unwritable["owner/complete"])
    assert "set HF_HOME to a folder that can be written" in str(unwritable["owner/complete"])


def test_disk_that_fills_up_in_a_download_is_named_whichever_library_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise RuntimeError("Data processing error: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fill)
    with pytest.raises(InputError, match=r"cannot write to the hub's cache: .* set HF_HOME to a folder"):
        download("owner/complete")


def test_absent_hub_model_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="model 'nobody/nothing' is neither 'smollm2', nor a folder, nor available"):
        download("nobody/nothing")
