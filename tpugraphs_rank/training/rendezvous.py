"""The processes of a training wait for one another, before TensorFlow connects them.

TensorFlow would wait for an hour, and ignore signals meanwhile: it holds Python's lock, and
replaces the handler of SIGTERM. So all processes connect to the first one here. Once all have come,
it sends each of them a word, and TensorFlow starts everywhere at about the same time.
"""

from collections.abc import Iterator, Sequence
import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

# Time for all processes to be started: cluster managers and people need some minutes.
LIMIT_SECONDS = 600.0
# Time for TensorFlow to connect processes that are all there. It takes about a second.
CONNECT_SECONDS = 60.0
_POLL_SECONDS = 0.2
# Seconds to hear that the first process waits no longer.
_ANSWER_SECONDS = 10.0
# Bytes of a line. Lines are short; a stranger may send more.
_LONGEST_LINE = 512
_NAME = "tpugraphs-rank"
_GO, _REFUSED, _CONNECTED = "go", "no ", "connected"

# Ends the process argv[1] with status 1 and a message if another one ends (its socket is closed
# before it says that TensorFlow has connected it), or after some seconds. The standard input is
# closed where the process needs no watch any more.
_WATCH = """
import os, select, signal, sys, time
deadline = time.monotonic() + float(sys.argv[2])
watched = [0, *map(int, sys.argv[4:])]
while True:
  ready = select.select(watched, [], [], max(deadline - time.monotonic(), 0))[0]
  if 0 in ready:
    sys.exit()
  has_ended = not ready
  for number in ready:
    try:
      has_ended = has_ended or not os.read(number, 64)
    except OSError:
      has_ended = True
    watched.remove(number)
  if has_ended:
    os.write(2, sys.argv[3].encode())
    os.kill(int(sys.argv[1]), signal.SIGHUP)
    sys.exit()
"""

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def meeting(workers: Sequence[str], worker: int, limit: float = LIMIT_SECONDS) -> Iterator[None]:
  """Waits until all processes are there. In the block, TensorFlow connects them.

  If another process ends during the block, this one ends with a line and status 1. Signals are
  postponed to the end of the block.

  Args:
    workers: the addresses HOST:PORT of the processes; the first one collects the others.
    worker: the position of this process.
    limit: seconds to wait.

  Raises:
    TrainingError: some do not come in time, an address is in use, or the first process has ended or
      refuses this one.
  """
  others = ", ".join(workers[1:]) if worker == 0 else workers[0]
  _logger.info("process %d of %d at %s: waiting for %s, at most %g minutes", worker + 1,
               len(workers), workers[worker], others, limit / 60)
  deadline = time.monotonic() + limit
  with contextlib.ExitStack() as stack:
    with _listening(workers[worker], len(workers)) as listener:
      lines = (_collect(stack, listener, workers, deadline, limit) if worker == 0
               else [_join(stack, workers, worker, deadline, limit)])
    with _watched(lines):
      yield
    for line in lines:
      line.send(_CONNECTED)


@contextlib.contextmanager
def _listening(address: str, count: int) -> Iterator[socket.socket]:
  """Holds the port that TensorFlow is going to use, so that no other process waits at it."""
  port = int(address.rpartition(":")[2])
  family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
  try:
    listener = socket.create_server(("", port), family=family, backlog=count,
                                    dualstack_ipv6=family == socket.AF_INET6)
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise errors.TrainingError(
          f"{address} is in use, perhaps by a process of an earlier attempt; end it, or choose "
          "another port in --workers") from None
    raise errors.TrainingError(
        f"cannot listen at {address}: {error.strerror or error}; choose another port in --workers"
    ) from None
  with listener:
    yield listener


class _Line:
  """A connection, and the line that arrives on it."""

  def __init__(self, connection: socket.socket):
    connection.setblocking(False)
    self.connection = connection
    self._received = b""
    self.has_ended = False

  def read(self) -> str | None:
    """The line if it is complete. Otherwise None; `has_ended` tells whether it cannot be."""
    try:
      received = self.connection.recv(_LONGEST_LINE)
    except BlockingIOError:
      return None
    except OSError:
      received = b""
    self._received += received
    line, end, rest = self._received.partition(b"\n")
    if end:
      self._received = rest
      return line.decode("utf-8", "replace")
    self.has_ended = not received or len(self._received) > _LONGEST_LINE
    return None

  def send(self, line: str) -> None:
    """Sends a line, which is short enough not to wait."""
    with contextlib.suppress(OSError):  # It has ended, which is noticed later.
      self.connection.sendall(f"{line}\n".encode())


def _digest(workers: Sequence[str]) -> str:
  return hashlib.sha256(" ".join(workers).encode()).hexdigest()[:16]


def _collect(stack: contextlib.ExitStack, listener: socket.socket, workers: Sequence[str],
             deadline: float, limit: float) -> list[_Line]:
  """Waits for the other processes, and lets them go on."""
  present: dict[int, tuple[_Line, str]] = {}
  listener.setblocking(False)
  with selectors.DefaultSelector() as selector:
    selector.register(listener, selectors.EVENT_READ)
    while len(present) < len(workers) - 1:
      if time.monotonic() > deadline:
        missing = [address for place, address in enumerate(workers) if place and
                   place not in present]
        raise errors.TrainingError(
            f"{', '.join(missing)} did not come within {limit / 60:g} minutes; start all "
            "processes of --workers, each with its own --worker, and check that they can reach "
            f"{workers[0]}")
      for key, _ in selector.select(_POLL_SECONDS):
        if key.fileobj is listener:
          with contextlib.suppress(OSError):
            line = _Line(stack.enter_context(listener.accept()[0]))
            selector.register(line.connection, selectors.EVENT_READ, line)
          continue
        line = key.data
        text = line.read()
        if text is not None:
          _welcome(line, text, workers, present)
        place = next((place for place, (one, _) in present.items() if one is line), None)
        if line.has_ended or text is not None and place is None:
          selector.unregister(line.connection)
          line.connection.close()
          if place is not None:
            _logger.warning("process %d (%s) has left; waiting for it to come again", place + 1,
                            present.pop(place)[1])
  lines = [line for line, _ in present.values()]
  for line in lines:
    line.send(_GO)
  return lines


def _welcome(line: _Line, text: str, workers: Sequence[str],
             present: dict[int, tuple[_Line, str]]) -> None:
  """Notes a process that has come, or tells it why it cannot take part."""
  name, _, rest = text.partition(" ")
  words = rest.split(" ", 2)
  if name != _NAME or len(words) != 3 or not words[0].isdecimal() or len(words[0]) > 6:
    _logger.warning("%s is not a process of this training, and is ignored", _peer(line.connection))
    return
  place, about = int(words[0]), escaping.printable(words[2])
  if words[1] != _digest(workers) or not 0 < place < len(workers):
    line.send(_REFUSED + "it has another list of --workers; give all of them the same")
    return
  if place in present:
    line.send(f"{_REFUSED}--worker={place} is there already: {present[place][1]}; end that "
              "process, or choose another --worker")
    return
  present[place] = line, about
  _logger.info("process %d of %d has come: %s", place + 1, len(workers), about)


def _peer(connection: socket.socket) -> str:
  try:
    return str(connection.getpeername()[0])
  except OSError:
    return "another program"


def _join(stack: contextlib.ExitStack, workers: Sequence[str], worker: int, deadline: float,
          limit: float) -> _Line:
  """Connects to the first process, and waits until it lets this one go on."""
  chief = workers[0]
  connection = None
  reason = ""
  while connection is None:
    if time.monotonic() > deadline:
      raise errors.TrainingError(
          f"{chief} was not reached within {limit / 60:g} minutes{reason}; start the process with "
          "--worker=0, and check the addresses in --workers")
    try:
      connection = socket.create_connection(_place(chief), timeout=_POLL_SECONDS * 10)
      if connection.getsockname() == connection.getpeername():  # The system allows that.
        connection.close()
        connection = None
    except OSError as error:
      reason = f" ({error.strerror or error})"
      time.sleep(_POLL_SECONDS)
  line = _Line(stack.enter_context(connection))
  line.send(f"{_NAME} {worker} {_digest(workers)} process {os.getpid()} on "
            f"{socket.gethostname()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}")
  with selectors.DefaultSelector() as selector:
    selector.register(connection, selectors.EVENT_READ)
    while True:
      answer = line.read() if selector.select(_POLL_SECONDS) else None
      if answer == _GO:
        return line
      if answer is not None:
        text = escaping.printable(answer.removeprefix(_REFUSED))
        raise errors.TrainingError(f"{chief} refuses this process: {text}")
      if line.has_ended:
        raise errors.TrainingError(
            f"the process at {chief} has ended, or is of another training; run the same command "
            "for all processes again")
      if time.monotonic() > deadline + _ANSWER_SECONDS:
        raise errors.TrainingError(
            f"the other processes did not come to {chief} within {limit / 60:g} minutes; start "
            "all processes of --workers")


def _place(address: str) -> tuple[str, int]:
  host, _, port = address.rpartition(":")
  return host.strip("[]"), int(port)


@contextlib.contextmanager
def _watched(lines: Sequence[_Line], seconds: float = CONNECT_SECONDS) -> Iterator[None]:
  """Ends this process if another one ends during the block, in which no Python code may run."""
  message = ("error: another process of this training has ended, or did not connect within "
             f"{seconds:g} seconds; run the same command for all of them again\n")
  numbers = [line.connection.fileno() for line in lines]
  # A signal whose number is the exit status, and whose handler is C's `_exit`: it takes the number.
  library = ctypes.CDLL(None)
  library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
  library.signal.restype = ctypes.c_void_p
  before = library.signal(signal.SIGHUP, ctypes.cast(library._exit, ctypes.c_void_p))
  # Threads that TensorFlow starts leave these signals to this one.
  is_main = threading.current_thread() is threading.main_thread()
  mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
  handler = signal.getsignal(signal.SIGTERM)
  watch = subprocess.Popen(
      [sys.executable, "-S", "-c", _WATCH, str(os.getpid()), str(seconds), message,
       *map(str, numbers)],
      stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=numbers, start_new_session=True)
  assert watch.stdin is not None
  try:
    yield
  finally:
    watch.stdin.close()
    watch.wait()
    library.signal(signal.SIGHUP, before)
    if is_main:  # TensorFlow has replaced it by one that does nothing.
      signal.signal(signal.SIGTERM, handler if handler is not None else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
