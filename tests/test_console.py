"""A job speaks UTF-8 in any locale, and outlives whoever reads its output."""

import os
import signal
import subprocess
import sys

import pytest

from artsel_ray.console import visible

GO_ON = """
import os, sys
from artsel_ray.console import unbreakable_output
with unbreakable_output():
    for stream in (sys.stdout, sys.stderr):
        for line in range(3):
            print("x" * 100_000, file=stream, flush=True)
    os.write(1, b"of another library")
    print("not flushed")
    print("done", file=open(sys.argv[1], "w"))
"""
SPEAK = """
import sys
from artsel_ray.console import require_utf8
require_utf8()
print(sys.argv[1], open(sys.argv[1]).read(), sys.getfilesystemencoding())
"""

END = """
import signal, sys, time
from artsel_ray import console
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever runs the tests may ignore some
console._END_SECONDS = 1.0
console.end_on_signals()
try:
    print("ready", flush=True)
    time.sleep(30)
except KeyboardInterrupt as interrupt:
    print("interrupted", *interrupt.args, flush=True)
    time.sleep(float(sys.argv[1]))  # what libraries do at the end
    sys.exit(*interrupt.args)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("cleanup", ["0.3", "30"])
def test_signals_end_a_job_once_and_soon_with_their_exit_code(number: signal.Signals, cleanup: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", END, cleanup], stdout=pipe, stderr=pipe, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
        job.send_signal(number)
        assert job.stdout.readline() == f"interrupted {128 + number}\n"
        for again in (signal.SIGINT, number):
            job.send_signal(again)
        out, err = job.communicate(timeout=10)
    assert (job.returncode, out, err) == (128 + number, "", "")


def test_signal_that_is_ignored_stays_ignored() -> None:
    code = (
        "import os, signal; from artsel_ray.console import end_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); end_on_signals(); os.kill(os.getpid(), signal.SIGHUP); print(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_output_without_a_reader_is_dropped(tmp_path: os.PathLike[str]) -> None:
    done = os.path.join(tmp_path, "done")
    command = f'"{sys.executable}" -c \'{GO_ON}\' {done} 2>&1 | head -c 5; exit "${{PIPESTATUS[0]}}"'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "xxxxx", "")
    with open(done) as file:
        assert file.read() == "done\n"


def test_last_line_without_a_reader_is_dropped_too() -> None:
    code = "from artsel_ray.console import unbreakable_output\nwith unbreakable_output():\n    print(1); input()"
    command = f'(sleep 1; echo) | "{sys.executable}" -c "{code}" | true; exit "${{PIPESTATUS[1]}}"'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full", "2>/dev/full"])
def test_output_that_cannot_be_written_is_dropped(redirect: str) -> None:
    code = "import sys; from artsel_ray.console import unbreakable_output\nwith unbreakable_output():\n"
    code += "    [print(1, file=stream, flush=flush) for stream in (sys.stdout, sys.stderr) for flush in (True, False)]"
    result = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{code}" {redirect}'], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "1\n1\n")


def test_names_and_output_are_utf8_in_any_locale(tmp_path: os.PathLike[str]) -> None:
    name = os.path.join(tmp_path, "Wörld-ñ")
    with open(name, "w", encoding="utf-8") as file:
        file.write("夜")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = subprocess.run([sys.executable, "-c", SPEAK, name], env={**os.environ, **plain}, capture_output=True)
    assert result.stdout.decode() == f"{name} 夜 utf-8\n", result.stderr.decode()


PRINT = """
import sys
from artsel_ray.console import unbreakable_output, visible_output
with unbreakable_output():
    with visible_output():
        print("a\\x1b[2Jb", "\\u202ec\\nd")
        sys.stderr.write("\\r50 %\\rx")
        sys.stderr.writelines(["\\u061c\\n", "\\u2028"])
        sys.stdout.flush()
    print("\\x1b[1mhelp")
"""


def test_no_printed_line_moves_the_cursor() -> None:
    result = subprocess.run([sys.executable, "-X", "utf8", "-c", PRINT], capture_output=True)
    assert result.stdout.decode() == "a\ufffd[2Jb \ufffdc\nd\n\x1b[1mhelp\n"
    assert result.stderr.decode() == "\r50 %\ufffdx\ufffd\n\ufffd"


def test_control_sequences_and_overrides_of_direction_are_shown_as_such() -> None:
    assert visible("a\x1b[2Jb\x9b1A\u202ec\u2066d\r\x00") == "a\ufffd[2Jb\ufffd1A\ufffdc\ufffdd\ufffd\ufffd"
    assert visible("Amélie\n\t日本語 می\u200cخواهم") == "Amélie\n\t日本語 می\u200cخواهم"
