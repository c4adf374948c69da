"""The standard streams: full disks, closed streams, and readers that leave."""

import errno
import io
import os
import subprocess
import sys

import pytest

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank.cli import streams


class _Failing(io.StringIO):
  """A stream whose writes fail."""

  def __init__(self, number):
    super().__init__()
    self._number = number

  def write(self, text):
    raise OSError(self._number, os.strerror(self._number))

  def flush(self):
    raise OSError(self._number, os.strerror(self._number))


def test_output_that_cannot_be_written_is_a_typed_error():
  output = streams._Output(_Failing(errno.ENOSPC))
  for write in (lambda: print("x", file=output), output.flush):
    with pytest.raises(errors.OutputError, match="standard output: No space left on device; free"):
      write()


def test_a_reader_that_leaves_is_no_typed_error():
  with pytest.raises(BrokenPipeError):
    print("x", file=streams._Output(_Failing(errno.EPIPE)))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EBADF])
def test_messages_that_cannot_be_written_are_dropped(number):
  messages = streams._Messages(_Failing(number))
  print("x", file=messages, flush=True)


def test_streams_pass_everything_on():
  inner = io.StringIO()
  for kind in (streams._Output, streams._Messages):
    stream = kind(inner)
    print("x", end="", file=stream, flush=True)
    assert not stream.isatty() and stream.getvalue() == inner.getvalue()
  assert inner.getvalue() == "xx"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")
@pytest.mark.parametrize("command, status, lines", [
    ("--version > /dev/full", 1, 1),
    ("describe --help > /dev/full", 1, 1),
    ("trian 2> /dev/full", 2, 0),
    ("--version 2> /dev/full", 0, 0),
    ("--version >&-", 0, 0),
    ("trian 2>&-", 2, 0),
    ("--version <&- >&- 2>&-", 0, 0),
])
def test_full_and_closed_streams(tmp_path, command, status, lines):
  done = subprocess.run(
      ["sh", "-c", f"'{sys.executable}' -m tpugraphs_rank.cli {command}"], text=True,
      capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(commands.ROOT)},
      check=False)
  assert done.returncode == status, done.stderr
  assert len(done.stderr.splitlines()) == lines
  assert not lines or done.stderr.startswith("error: cannot write to the standard output: No space")
  assert "tpugraphs-rank" not in done.stdout or "2> /dev/full" in command


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
  code = ("from tpugraphs_rank.cli import streams; import sys; streams.prepare();"
          "file = open('mine', 'w'); print('message', file=sys.stderr, flush=True);"
          "sys.exit(file.fileno())")
  done = subprocess.run(
      ["sh", "-c", f"'{sys.executable}' -c \"{code}\" 2>&-"], cwd=tmp_path, check=False,
      env={**os.environ, "PYTHONPATH": str(commands.ROOT)})
  assert done.returncode > 2
  assert (tmp_path / "mine").read_text() == ""
