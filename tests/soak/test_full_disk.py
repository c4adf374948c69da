"""The long commands on a disk and a standard output that are full."""

import os
import resource
import subprocess
import sys

import pytest

from tests.helpers import commands
from tests.soak import long_commands

pytestmark = pytest.mark.slow
# No file may become larger, as if the disk were full. Small files are written before that.
_MOST_BYTES = 1500
_MOST_BYTES_OF = {"predict": 100}
_NAMES = [name for name, command in long_commands.COMMANDS.items() if command.forks]


def _process(words, module, **options):
  return subprocess.run(
      [sys.executable, "-m", module, *words], text=True, stderr=subprocess.PIPE,
      stdin=subprocess.DEVNULL, check=False, cwd=commands.ROOT,
      env={**os.environ, "PYTHONPATH": str(commands.ROOT)}, **options)


def _prepared(name, folder):
  """The words of a command whose inputs are written, and its output folder."""
  command, data, out = long_commands.COMMANDS[name], folder / "data", folder / "out"
  data.mkdir()

  def run(*words):
    done = _process(words, "tpugraphs_rank.cli", stdout=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr

  names = {"data": str(data), "out": str(out), **(command.prepare(data, run) or {})}
  for copied in command.copied:
    out.mkdir(exist_ok=True)
    (data / copied).rename(out / copied)
  return [word.format(**names) for word in command.words], out


@pytest.mark.parametrize("name", _NAMES)
def test_a_full_disk_leaves_one_line_and_no_partial_files(name, tmp_path):
  words, out = _prepared(name, tmp_path)
  module = long_commands.COMMANDS[name].module
  most = _MOST_BYTES_OF.get(name, _MOST_BYTES)
  done = _process(words, module, stdout=subprocess.DEVNULL, preexec_fn=lambda: resource.setrlimit(
      resource.RLIMIT_FSIZE, (most, most)))
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert done.returncode == 1 and len(lines) == 1, done.stderr
  assert "File too large" in lines[0] or "cannot be written" in lines[0], lines[0]
  assert "Traceback" not in done.stderr and "Logging error" not in done.stderr
  # A download keeps what it has received, to continue.
  assert name == "download" or not [path for path in out.rglob("*.partial")]
  # With space again, the same command continues.
  done = _process(words, module, stdout=subprocess.DEVNULL)
  assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
@pytest.mark.parametrize("name", ["describe", "pack", "predict"])
def test_a_standard_output_that_is_full(name, tmp_path):
  if name == "describe":
    words = ["describe", "--collection=tile:xla_cpu"]
  else:
    words, _ = _prepared(name, tmp_path)
  with open("/dev/full", "w", encoding="utf-8") as full:
    done = _process(words, "tpugraphs_rank.cli", stdout=full)
  assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
  assert done.stderr.splitlines()[-1].startswith(
      "error: cannot write to the standard output: No space left")
