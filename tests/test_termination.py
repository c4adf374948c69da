"""Signals that arrive while a process waits inside of a library."""

import signal
import subprocess

import pytest

from tests.helpers import commands
from tpugraphs_rank import termination

# A wait in C: Python's own handlers would run a minute later.
_WAITS = """
import ctypes
from tpugraphs_rank import termination
with {block}:
  print("ready", flush=True)
  ctypes.CDLL(None).sleep(60)
"""


def _end(block: str, number: int) -> tuple[int, str]:
  process = commands.started(_WAITS.format(block=block), stderr=subprocess.PIPE)
  process.send_signal(number)
  messages = process.communicate(timeout=30)[1]
  return process.returncode, messages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_message_and_the_status_of_the_signal(number):
  assert _end('termination.signals_end_with("kept")', number) == (128 + number, "kept\n")


def test_the_handlers_before_are_restored():
  before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
  with termination.signals_end_with(""):
    pass
  assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
  assert signal.set_wakeup_fd(-1) == -1
