"""Processes that wait for one another, before TensorFlow connects them."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.helpers import commands

_PROCESS = """
import ctypes, logging, os, signal, sys
from tpugraphs_rank import errors
from tpugraphs_rank.training import rendezvous
logging.basicConfig(level="INFO", format="%(message)s", stream=sys.stdout)
before = signal.getsignal(signal.SIGTERM)
try:
  with rendezvous.meeting(sys.argv[1].split(","), int(sys.argv[2]), float(sys.argv[3])):
    {block}
  assert signal.getsignal(signal.SIGTERM) == before
  print("met")
except errors.TrainingError as error:
  print("refused:", error)
  sys.exit(1)
"""
# A wait in C that keeps Python's lock, as TensorFlow's does, with a handler like TensorFlow's.
_WAITS = ("print('waits', flush=True); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
          "ctypes.PyDLL(None).sleep(60)")


def _addresses(count: int = 2) -> str:
  sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
  ports = [one.getsockname()[1] for one in sockets]
  for one in sockets:
    one.close()
  return ",".join(f"127.0.0.1:{port}" for port in ports)


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def fixture_end_of_processes():
  yield
  while _started:
    process = _started.pop()
    process.kill()
    process.communicate()


def _start(addresses: str, worker: int, limit: float = 20, block: str = "pass"
           ) -> subprocess.Popen[str]:
  _started.append(subprocess.Popen(
      [sys.executable, "-c", _PROCESS.replace("{block}", block), addresses, str(worker),
       str(limit)],
      cwd=commands.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
  return _started[-1]


def _end(process: subprocess.Popen[str], status: int) -> str:
  output, messages = process.communicate(timeout=30)
  assert process.returncode == status, (output, messages)
  return output + messages


def _until(process: subprocess.Popen[str], text: str) -> None:
  assert process.stdout is not None
  for line in process.stdout:
    if text in line:
      return
  raise AssertionError(f"{text!r} was not printed")


def test_all_processes_meet():
  addresses = _addresses(3)
  processes = [_start(addresses, worker) for worker in (2, 0, 1)]
  outputs = [_end(process, 0) for process in processes]
  assert all(output.endswith("met\n") for output in outputs)
  chief, *others = addresses.split(",")
  assert outputs[1].startswith(
      f"process 1 of 3 at {chief}: waiting for {', '.join(others)}, at most 0.333333 minutes\n")
  assert f"process 3 of 3 has come: process {processes[0].pid} on " in outputs[1]
  assert outputs[0].startswith(f"process 3 of 3 at {others[1]}: waiting for {chief}, at most ")


def test_processes_that_do_not_come():
  addresses = _addresses()
  first, second = addresses.split(",")
  assert f"refused: {second} did not come within 0.02 minutes; start all processes" in _end(
      _start(addresses, 0, 1.2), 1)
  assert f"refused: {first} was not reached within 0.02 minutes (" in _end(
      _start(addresses, 1, 1.2), 1)


@pytest.mark.parametrize("worker", [0, 1])
def test_signals_end_a_process_that_waits(worker):
  process = _start(_addresses(), worker)
  _until(process, "waiting for")
  process.send_signal(signal.SIGTERM)
  _end(process, -signal.SIGTERM)


def test_an_address_in_use_and_a_process_that_is_there_already():
  addresses = _addresses(3)
  waits = _start(addresses, 1)
  _until(waits, "waiting for")
  refused = _end(_start(addresses, 1), 1)
  assert f"{addresses.split(',')[1]} is in use, perhaps by a process of an earlier" in refused
  # As another one that names this place, from another machine.
  chief = _start(addresses, 0)
  _until(chief, "process 2 of 3 has come")
  port = int(addresses.split(",")[0].rpartition(":")[2])
  with socket.create_connection(("127.0.0.1", port)) as stranger:
    stranger.sendall(b"GET / HTTP/1.0\n")
    assert stranger.recv(100) == b""
  _until(chief, "127.0.0.1 is not a process of this training, and is ignored")
  other = ",".join([*addresses.split(",")[:2], _addresses(1)])
  assert "refuses this process: it has another list of --workers" in _end(_start(other, 2), 1)
  # One that leaves may come again.
  waits.kill()
  _until(chief, "has left; waiting for it to come again")
  again = [_start(addresses, worker) for worker in (1, 2)]
  for process in (chief, *again):
    _end(process, 0)


def test_the_first_process_ends():
  addresses = _addresses(3)
  chief, waits = _start(addresses, 0), _start(addresses, 1)
  _until(chief, "has come")
  chief.kill()
  assert "has ended, or is of another training; run the same command for all" in _end(waits, 1)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_ends_while_tensorflow_connects(victim):
  addresses = _addresses(3)
  processes = [_start(addresses, worker, block=_WAITS) for worker in range(3)]
  for process in processes:
    _until(process, "waits")
  started = time.monotonic()
  processes[victim].kill()
  for place, process in enumerate(processes):
    if place != victim:
      assert "error: another process of this training has ended, or did not connect within 60 " in (
          _end(process, 1))
  assert time.monotonic() - started < 20
