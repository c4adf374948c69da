"""What a worker does with an input: it runs the task, and appends the result to a file.

A folder holds the task, the inputs, and the results. Each worker appends to a file of its own, so
what is done stays, even if the worker or the whole pipeline ends. A result that occurs twice,
because a runner repeats a part of its work, counts once.
"""

import base64
from collections.abc import Iterator, Sequence
import contextlib
import logging
import os
import pathlib
import pickle
import secrets
import threading
import traceback
from typing import Any, NamedTuple

import apache_beam as beam

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import memory
from tpugraphs_rank import work

_TASK, _INPUTS, _RESULTS = "task", "inputs", "results"
_LOGGER = "tpugraphs_rank"
# A line of results has one of these characters, the number of the input, a space, and the result.
_STARTED, _FINISHED = "s", "r"


class Result(NamedTuple):
  """The result of an input.

  Attributes:
    number: of the input.
    value: what the task returned; None after an error.
    error: class and message of the error; None without one.
    logs: logger, level and message of each line that the task logged.
  """

  number: int
  value: Any
  error: tuple[str, str] | None
  logs: list[tuple[str, int, str]]

  def outcome(self) -> work.Outcome[Any]:
    """The outcome; what the task logged is logged now."""
    for name, level, message in self.logs:
      logging.getLogger(name).log(level, "%s", message)
    if self.error is None:
      return work.Outcome(self.value)
    name, message = self.error
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.TpuGraphsRankError):
      return work.Outcome(error=kind(message))
    return work.Outcome(error=errors.PipelineError(f"a worker failed unexpectedly: {message}"))


def shown(item: Any) -> str:
  """An item in a message: the first path in it, or the item itself."""
  waiting = [item]
  while waiting:
    one = waiting.pop(0)
    if isinstance(one, pathlib.Path) or (isinstance(one, str) and pathlib.PurePath(one).suffix):
      return str(one)
    if isinstance(one, (tuple, list)):
      waiting = [*one, *waiting]
  return str(item)


class _Here:
  """The pipeline that runs in this process, whose workers may be here, too.

  Attributes:
    stopped: whether it should end.
  """

  stopped = False


here = _Here()


def write_task(folder: pathlib.Path, task: work.Task[Any, Any]) -> None:
  """Writes the task."""
  with files.atomic_write(folder / _TASK) as file:
    pickle.dump(task, file)


def write_inputs(folder: pathlib.Path, inputs: Sequence[tuple[int, Any]]) -> None:
  """Writes inputs, with their numbers, in the order in which they are handed out."""
  with files.atomic_write(folder / _INPUTS) as file:
    for one in inputs:
      file.write(_encoded(one).encode() + b"\n")


def read_inputs(folder: str) -> Iterator[str]:
  """Yields the inputs, encoded."""
  with open(pathlib.Path(folder) / _INPUTS, encoding="ascii") as lines:
    for line in lines:
      yield line.rstrip("\n")


class Stored(NamedTuple):
  """Where a result is: results may be larger than memory.

  Attributes:
    path: the file.
    offset: of its line, in bytes.
  """

  path: pathlib.Path
  offset: int

  def read(self) -> Result:
    """Reads the result."""
    with open(self.path, "rb") as file:
      file.seek(self.offset)
      return Result(*_decoded(file.readline().split()[1]))


def find_results(folder: pathlib.Path) -> dict[int, Stored]:
  """The results so far, by the number of the input."""
  return {number: Stored(path, offset) for path in sorted(folder.glob(f"{_RESULTS}-*"))
          for kind, number, offset in _lines(path) if kind == _FINISHED}


def unfinished_of(folder: pathlib.Path, pid: int) -> list[int]:
  """The inputs that a process of this machine has started and not finished."""
  started: dict[int, None] = {}
  for path in folder.glob(f"{_RESULTS}-{pid}-*"):
    for kind, number, _ in _lines(path):
      if kind == _STARTED:
        started[number] = None
      else:
        started.pop(number, None)
  return list(started)


def _lines(path: pathlib.Path) -> Iterator[tuple[str, int, int]]:
  """Yields kind, number of the input and offset of each complete line."""
  offset = 0
  with open(path, "rb") as lines:
    for line in lines:
      if line.endswith(b"\n"):
        yield chr(line[0]), int(line[1:line.index(b" ")]), offset
      offset += len(line)


def _encoded(value: Any) -> str:
  """One line of text. The folder is private, and Beam itself moves elements as pickles."""
  return base64.b64encode(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)).decode("ascii")


def _decoded(text: str | bytes) -> Any:
  return pickle.loads(base64.b64decode(text))


class Process(beam.DoFn):
  """Runs the task on inputs. It returns nothing: the results are in files."""

  def __init__(self, folder: str):
    self._folder = folder
    self._done = beam.metrics.Metrics.counter(_LOGGER, "processed")
    self._failed = beam.metrics.Metrics.counter(_LOGGER, "failed")

  def setup(self) -> None:
    self._path = pathlib.Path(self._folder) / f"{_RESULTS}-{os.getpid()}-{secrets.token_hex(8)}"

  def start_bundle(self) -> None:
    self._file = open(self._path, "a", encoding="ascii")

  def process(self, element: str, *args: Any, **kwargs: Any) -> None:
    if here.stopped:
      return  # Nobody reads the results any more.
    number, item = _decoded(element)
    self._write(_STARTED, number, "")
    loaded = _loaded(self._folder)
    value, failure = None, None
    with loaded.lock, _captured_logs() as logs:
      try:
        value = loaded.task(item)
      except errors.TpuGraphsRankError as error:
        failure = type(error).__name__, str(error)
      except Exception as error:  # A fault of the task must not lose the work on other inputs.
        failure = type(error).__name__, traceback.format_exc().strip()
        if memory.ran_out(error):
          failure = errors.OutOfMemoryError.__name__, (
              f"memory ran out in the worker that processed {shown(item)}")
    (self._done if failure is None else self._failed).inc()
    self._write(_FINISHED, number, _encoded(tuple(Result(number, value, failure, logs))))

  def _write(self, kind: str, number: int, content: str) -> None:
    self._file.write(f"{kind}{number} {content}\n")
    self._file.flush()

  def finish_bundle(self) -> None:
    self._file.close()  # Network file systems show what others have written once it is closed.

  def teardown(self) -> None:
    with _tasks_lock:
      loaded = _tasks.pop(self._folder, None)
    if loaded is not None:
      loaded.task.close()


class _Loaded(NamedTuple):
  task: work.Task[Any, Any]
  # Some runners process several inputs in the threads of one process. Tasks use one thread, as in
  # a command: a model that two threads use at a time would have to be safe for that.
  lock: threading.Lock


# The tasks of this worker by the pipeline's folder: loading a run takes seconds.
_tasks: dict[str, _Loaded] = {}
_tasks_lock = threading.Lock()


def _loaded(folder: str) -> _Loaded:
  with _tasks_lock:
    if folder not in _tasks:
      with open(pathlib.Path(folder) / _TASK, "rb") as file:
        _tasks[folder] = _Loaded(pickle.load(file), threading.Lock())
    return _tasks[folder]


class _Capture(logging.Handler):
  """Keeps what one thread logs."""

  def __init__(self) -> None:
    super().__init__(logging.INFO)
    self.lines: list[tuple[str, int, str]] = []
    self._thread = threading.get_ident()

  def emit(self, record: logging.LogRecord) -> None:
    if record.thread == self._thread:
      self.lines.append((record.name, record.levelno, record.getMessage()))


@contextlib.contextmanager
def _captured_logs() -> Iterator[list[tuple[str, int, str]]]:
  """What the framework logs in the block, for the process that runs the pipeline to log it."""
  logger = logging.getLogger(_LOGGER)
  capture = _Capture()
  before = logger.handlers[:], logger.level, logger.propagate
  # Not logged here: by Beam, or in the process that runs the pipeline in another order.
  logger.handlers[:] = [capture]
  logger.setLevel(logging.INFO)
  logger.propagate = False
  try:
    yield capture.lines
  finally:
    logger.handlers[:], logger.level, logger.propagate = before
