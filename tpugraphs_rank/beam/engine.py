"""Runs a task on many items as an Apache Beam pipeline, on any of its runners.

    inputs -> Reshuffle -> the task -> results

The task, its inputs and its results travel in files of a work folder, which this process and all
workers share. So a pipeline of a million programs is as small to submit as one of ten, and results
that are written twice, because a runner repeats a part of its work, count once. What a task itself
reads and writes, such as graphs, must be in folders that the workers reach under the same paths.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
import contextlib
import logging
import pathlib
import pickle
import threading
import traceback
from typing import Any, NamedTuple

import apache_beam as beam

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.beam import options as options_lib
from tpugraphs_rank.beam import scratch

_TASK, _INPUTS, _RESULTS = "task", "inputs", "results"
_LOGGER = "tpugraphs_rank"


class _Result(NamedTuple):
  """The result of an item, as a worker writes it.

  Attributes:
    index: of the item.
    value: what the task returned; None after an error.
    error: class and message of the error; None without one.
    logs: logger, level and message of each line that the task logged.
  """

  index: int
  value: Any
  error: tuple[str, str] | None
  logs: list[tuple[str, int, str]]


class BeamEngine:
  """Runs tasks with Apache Beam. Any error of an item is an outcome and stops no other item."""

  in_process = False

  def __init__(self, runner: str, arguments: Sequence[str] = (),
               work_folder: files.PathLike | None = None):
    """Checks the options; nothing runs yet.

    Args:
      runner: the name of a runner, such as "DirectRunner".
      arguments: Beam's options, such as "--direct_num_workers=2".
      work_folder: a folder that this process and all workers share. Default: the system's folder
        for temporary files, which suits workers on this machine.

    Raises:
      ConfigError: there is no such runner or option.
    """
    self._name = runner
    self._options = options_lib.parse(arguments, runner)
    self._runner = options_lib.runner_named(runner, self._options)
    self._work_folder = None if work_folder is None else pathlib.Path(work_folder)

  def map(self, task: work.Task[work.Item, work.Value], items: Sequence[work.Item],
          cost: Callable[[work.Item], float] | None = None) -> Iterator[work.Outcome[work.Value]]:
    """See `work.Engine`. The first outcome appears once all items are processed.

    Raises:
      PipelineError: the pipeline failed as a whole, for instance because a worker ran out of
        memory.
      OutputError: the work folder cannot be written.
    """
    # Runners deal out inputs in turn, so the largest come first: it balances the work.
    order = list(range(len(items)))
    if cost is not None:
      costs = [cost(item) for item in items]
      order.sort(key=lambda index: -costs[index])
    with scratch.folder(self._work_folder) as folder:
      with files.atomic_write(folder / _TASK) as file:
        pickle.dump(task, file)
      with files.atomic_write(folder / _INPUTS) as file:
        for index in order:
          file.write(_encoded((index, items[index])) + b"\n")
      self._run(folder)
      yield from _outcomes(folder, len(items))

  def scratch(self) -> contextlib.AbstractContextManager[pathlib.Path | None]:
    """See `work.Engine`."""
    return scratch.folder(self._work_folder)

  def _run(self, folder: pathlib.Path) -> None:
    """Runs the pipeline to its end."""
    pipeline = beam.Pipeline(runner=self._runner, options=self._options)
    _ = (pipeline
         | "Folder" >> beam.Create([str(folder)])
         | "Inputs" >> beam.FlatMap(_read_inputs)
         | "Spread" >> beam.Reshuffle()
         | "Process" >> beam.ParDo(_Process(str(folder)))
         | "Results" >> beam.io.WriteToText(str(folder / _RESULTS)))
    _driver.running = True
    try:
      state = pipeline.run().wait_until_finish()
    except Exception as error:  # Each runner has its own.
      raise errors.PipelineError(
          f"the pipeline on {self._name} failed: {_last_line(error)}; check the "
          "logs of its workers (memory that runs out ends them), or work without --runner"
      ) from error
    finally:
      _driver.running = False
    if state not in (None, "DONE"):
      raise errors.PipelineError(
          f"the pipeline on {self._name} ended in the state {state}; expected "
          "DONE; check the logs of its workers")


class _Driver:
  """Whether this process is the one that runs the pipeline; a worker may be in it, too."""

  running = False


_driver = _Driver()


def _encoded(value: Any) -> bytes:
  """A line of text. The folder is private, and Beam itself moves elements as pickles."""
  return base64.b64encode(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def _read_inputs(folder: str) -> Iterator[str]:
  with open(pathlib.Path(folder) / _INPUTS, encoding="ascii") as lines:
    for line in lines:
      yield line.rstrip("\n")


class _Process(beam.DoFn):
  """Runs the task on an input; yields a line with its result."""

  def __init__(self, folder: str):
    self._folder = folder
    self._done = beam.metrics.Metrics.counter(_LOGGER, "processed")
    self._failed = beam.metrics.Metrics.counter(_LOGGER, "failed")

  def process(self, element: str, *args: Any, **kwargs: Any) -> Iterator[str]:
    index, item = pickle.loads(base64.b64decode(element))
    loaded = _task(self._folder)
    value, failure = None, None
    with _captured_logs() as logs, loaded.lock:
      try:
        value = loaded.task(item)
      except errors.TpuGraphsRankError as error:
        failure = type(error).__name__, str(error)
      except Exception as error:  # A fault of the task must not lose the work on other inputs.
        failure = type(error).__name__, traceback.format_exc().strip()
    (self._done if failure is None else self._failed).inc()
    yield _encoded(_Result(index, value, failure, logs)).decode("ascii")

  def teardown(self) -> None:
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


def _task(folder: str) -> _Loaded:
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
  if _driver.running:
    yield []  # It is this process.
    return
  logger = logging.getLogger(_LOGGER)
  capture = _Capture()
  logger.addHandler(capture)
  logger.setLevel(logging.INFO)
  logger.propagate = False  # Otherwise Beam would log it a second time.
  try:
    yield capture.lines
  finally:
    logger.removeHandler(capture)


def _outcomes(folder: pathlib.Path, count: int) -> Iterator[work.Outcome[Any]]:
  """Reads the results, and yields them in the order of the inputs."""
  results: dict[int, _Result] = {}
  for path in sorted(folder.glob(f"{_RESULTS}-*")):
    with open(path, encoding="ascii") as lines:
      for line in lines:
        result = _Result(*pickle.loads(base64.b64decode(line)))
        results[result.index] = result
  if len(results) != count:
    raise errors.PipelineError(
        f"the pipeline returned {len(results)} of {count} results in {folder}; expected all of "
        "them; pass --work_folder with a folder that all workers share")
  for index in range(count):
    result = results.pop(index)
    for name, level, message in result.logs:
      logging.getLogger(name).log(level, "%s", message)
    if result.error is None:
      yield work.Outcome(result.value)
    else:
      yield work.Outcome(error=_error(*result.error))


def _error(name: str, message: str) -> Exception:
  """The typed error of a worker; a PipelineError for any other class."""
  kind = getattr(errors, name, None)
  if isinstance(kind, type) and issubclass(kind, errors.TpuGraphsRankError):
    return kind(message)
  return errors.PipelineError(f"a worker failed unexpectedly: {message}")


def _last_line(error: Exception) -> str:
  lines = str(error).strip().splitlines()
  return lines[-1] if lines else type(error).__name__
