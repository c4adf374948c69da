"""The download command: interrupted, killed, and run in several processes at the same time."""

import hashlib
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

from tests.data import test_download as lib
from tests.helpers import commands
from tests.helpers import file_server
from tpugraphs_rank.data import archives


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
  with file_server.FileServer({lib.NAME: lib.archive(lib.GOOD)}) as served:
    yield served


def _start(server, root, *arguments):
  """The command in a process of its own, which a test can kill."""
  return subprocess.Popen(
      commands.process("download", "--data_root", root, "--base_url", server.address, *arguments),
      cwd=commands.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


VALID = ("--collections=layout:xla:random", "--splits=valid")


def _run(server, root, *arguments):
  done = commands.run("download", "--data_root", root, "--base_url", server.address, *arguments)
  return done.returncode, done.stdout, done.stderr


def test_downloaded_listed_and_verified(server, tmp_path):
  absent = _run(server, tmp_path, *VALID, "--list")
  assert absent[0] == 0 and absent[2] == ""
  head, row, last = absent[1].splitlines()
  assert head.split() == ["file", "size", "place", "local"]
  assert row.split() == [lib.NAME, "430kB", lib.FOLDER, "absent"]
  assert last == f"1 file, 430kB; data root {tmp_path}"
  assert not list(tmp_path.iterdir())
  assert _run(server, tmp_path, *VALID)[:2] == (
      0, f"downloaded {lib.NAME}: 7 files in {tmp_path / lib.FOLDER}\n")
  assert lib.data(tmp_path) == lib.GOOD
  code, output, log = _run(server, tmp_path, *VALID)
  assert (code, output) == (0, f"verified {lib.NAME}: 7 files in {tmp_path / lib.FOLDER}\n")
  assert hashlib.sha256(server.files[lib.NAME]).hexdigest() in log
  assert "complete, 7 files" in _run(server, tmp_path, *VALID, "--list")[1]
  # Without a server, remote sizes are unknown, but local files are listed.
  del server.files[lib.NAME]
  code, output, _ = _run(server, tmp_path, *VALID, "--list")
  assert code == 0 and f"?     {lib.FOLDER}  complete, 7 files" in output
  assert output.splitlines()[-1].startswith(f"1 of unknown size: cannot fetch {server.address}")


def test_a_listing_reports_files_that_the_server_lacks(server, tmp_path):
  code, output, _ = _run(server, tmp_path, "--collections=layout:xla:random", "--list")
  assert code == 0
  sizes = {line.split()[0]: line.split()[1] for line in output.splitlines()[1:4]}
  assert sizes == {"npz_layout_xla_random_train.tar": "?", lib.NAME: "430kB",
                   "npz_layout_xla_random_test.tar": "?"}
  assert "2 of unknown size: cannot fetch" in output and "answers 404" in output


def test_the_archive_is_kept_on_request(server, tmp_path):
  assert _run(server, tmp_path, *VALID, "--keep_archives")[0] == 0
  assert (tmp_path / "downloads" / lib.NAME).read_bytes() == server.files[lib.NAME]


def test_raw_archives(server, tmp_path):
  folder = "pb" + lib.FOLDER.removeprefix("npz")
  server.files["pb_layout_xla_random_valid.tar"] = lib.archive(lib.contents(folder))
  assert _run(server, tmp_path, *VALID, "--raw")[0] == 0
  assert lib.data(tmp_path) == lib.contents(folder)


def test_extras_must_be_the_published_ones(server, tmp_path):
  for remote in archives.extra_files(server.address):
    server.files[remote.address.removeprefix(server.address)] = b"others"
  code, output, log = _run(server, tmp_path, "--collections=", "--extras")
  assert (code, output) == (1, "") and not lib.data(tmp_path)
  assert "error: 6 of 6 failed:" in log and log.count("(published with the data)") == 6


def test_extras(server, tmp_path):
  folder = os.environ.get("TPUGRAPHS_TESTDATA")
  if not folder:
    pytest.skip("TPUGRAPHS_TESTDATA does not name the folder of real data")
  wanted = {}
  for remote in archives.extra_files(server.address):
    content = (pathlib.Path(folder) / remote.place).read_bytes()
    server.files[remote.address.removeprefix(server.address)] = content
    wanted[str(remote.place)] = content
  code, output, log = _run(server, tmp_path, "--collections=", "--extras")
  assert code == 0, log
  assert lib.data(tmp_path) == wanted and output.count("downloaded ") == 6


def test_killed_during_the_transfer_and_run_again(server, tmp_path):
  server.pace = 0.02
  partial = tmp_path / "downloads" / f"{lib.NAME}.partial"
  # Sent bytes may wait in buffers on a busy machine; only the stored bytes count.
  kept = lambda: partial.stat().st_size if partial.exists() else 0
  for _ in range(3):
    before = kept()
    process = _start(server, tmp_path, *VALID)
    server.on_sent = lambda sent: kept() - before >= 50_000 and process.kill()
    process.communicate()
    assert process.returncode == -9 and not lib.data(tmp_path)
  server.on_sent = lambda sent: None
  server.pace = 0
  assert _run(server, tmp_path, *VALID)[0] == 0
  assert lib.data(tmp_path) == lib.GOOD
  assert lib.left(tmp_path) == [f"{lib.NAME}.json", f"{lib.NAME}.lock"]
  starts = [int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            for request in server.gets()]
  assert starts == sorted(starts) and len(set(starts)) == 4 and starts[0] == 0


@pytest.fixture
def _ctrl_c():
  """A shell's background jobs ignore SIGINT, and their children inherit that; handlers are not
  inherited."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_during_the_transfer(server, tmp_path, number):
  server.pace = 0.05
  partial = tmp_path / "downloads" / f"{lib.NAME}.partial"
  process = _start(server, tmp_path, *VALID)

  def interrupt(sent):
    if sent < 150_000 or server.pace == 1:
      return
    # Sent bytes may wait in buffers on a busy machine; nothing more arrives meanwhile.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        partial.exists() and partial.stat().st_size > 50_000):
      time.sleep(0.01)
    server.pace = 1
    process.send_signal(number)

  server.on_sent = interrupt
  output, log = process.communicate()
  assert (output, process.returncode) == ("", 130 if number == signal.SIGINT else 143)
  assert partial.stat().st_size > 50_000
  what, state, then = log.rstrip("\n").split("; ")
  assert what == ("interrupted" if number == signal.SIGINT else "terminated")
  assert re.fullmatch(rf"0 of 1 files complete, and \S+B of others received, in {tmp_path}", state)
  assert then.startswith("`tpugraphs-rank download --") and then.endswith("` resumes")


def test_two_processes_share_the_work(server, tmp_path):
  server.pace = 0.02
  processes = [_start(server, tmp_path, *VALID) for _ in range(2)]
  outputs = sorted(process.communicate()[0] for process in processes)
  assert [process.returncode for process in processes] == [0, 0]
  assert [output.split()[0] for output in outputs] == ["downloaded", "verified"]
  assert len(server.gets()) == 1 and lib.data(tmp_path) == lib.GOOD


@pytest.mark.parametrize("arguments, status, message", [
    (["--collections=tile:xls"], 1, "error: no collection 'tile:xls' (did you mean 'tile:xla'?)"),
    (["--collections=tile:xla_cpu"], 1, "error: collection tile:xla_cpu has no public archives"),
    (["--splits=vaild"], 1, "error: collection layout:nlp:default has no split 'vaild'"),
    (["--collections="], 1, "error: nothing to download: give --collections and --splits"),
    (["--splits="], 1, "error: nothing to download"),
    (["--base_url=mirror"], 1, "error: base_url 'mirror' is not an address"),
    (["--collections=tile:xla"], 1,
     "the servers do not report the size of 3 of 3 files\nerror: 3 of 3 failed:\n"),
    (["--parallel=0"], 2, "error: flag --parallel=0: "),
    (["tile:xla"], 2, "error: unexpected argument 'tile:xla'"),
])
def test_mistakes(server, tmp_path, arguments, status, message):
  code, output, log = _run(server, tmp_path / "root", *arguments)
  assert (code, output) == (status, "") and log.startswith(message), log
  assert not lib.data(tmp_path)
