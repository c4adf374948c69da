"""One function of one program, over many programs: in this process, or wherever an engine runs it.

A command that processes many programs has one task, which is a function of one program, and one
loop over what the task returns. An engine decides where the task runs. So a program is processed by
the same code everywhere, and its results are the same.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any, Generic, Protocol, TypeVar

from tpugraphs_rank import errors

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[Value]):
  """What processing an item led to.

  Attributes:
    value: what the task returned; None after an error.
    error: why there is no value; None otherwise.
  """

  value: Value | None = None
  error: Exception | None = None

  def get(self) -> Value:
    """The value.

    Raises:
      Exception: the error.
    """
    if self.error is not None:
      raise self.error
    return self.value  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Failure:
  """An input that could not be processed.

  Attributes:
    source: the input, such as the path of a file.
    error: why.
  """

  source: str
  error: Exception

  def to_json(self) -> dict[str, str]:
    """The failure for JSON."""
    return {"input": self.source, "error": type(self.error).__name__, "message": str(self.error)}


def nothing_left(failures: Sequence[Failure], error: Exception | None = None) -> Exception:
  """The error to raise if all inputs failed: that of the first one, with all `failures`."""
  error = error or failures[0].error
  error.failures = tuple(failures)  # type: ignore[attr-defined]
  return error


class Task(Generic[Item, Value]):
  """A function of one item, as a frozen dataclass. An engine may pickle it, to run it elsewhere.

  What it loads once for all items it keeps in cached properties. These are not pickled: each
  process loads them again. Results must be picklable, too.
  """

  # Errors that concern one item only: the others are processed anyway.
  expected: tuple[type[Exception], ...] = (errors.DataError,)

  def __call__(self, item: Item) -> Value:
    """Processes an item. The result depends only on the item and the fields of the task."""
    raise NotImplementedError

  def close(self) -> None:
    """Releases what the task has opened."""

  def __getstate__(self) -> dict[str, Any]:
    return {field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)}  # type: ignore[arg-type]

  def __setstate__(self, state: dict[str, Any]) -> None:
    for name, value in state.items():
      object.__setattr__(self, name, value)  # Tasks are frozen.


class Engine(Protocol):
  """Runs a task on many items.

  Attributes:
    in_process: whether tasks run in this process, one after the other. Otherwise results travel
      between processes, so that large arrays should be written to files instead.
  """

  in_process: bool

  def map(self, task: Task[Item, Value], items: Sequence[Item],
          cost: Callable[[Item], float] | None = None) -> Iterator[Outcome[Value]]:
    """Yields the outcome of each item, in their order.

    Args:
      task: the task.
      items: the items; they can be pickled.
      cost: how long an item takes, in any unit, to balance the work between processes. It has no
        influence on the results.
    """
    ...

  def scratch(self) -> contextlib.AbstractContextManager[pathlib.Path | None]:
    """A folder in which tasks may leave large results; it is removed in the end.

    Returns:
      The folder, which all processes share; None if tasks run in this process.
    """
    ...


class Here:
  """Runs tasks in this process. An error that the task does not expect is raised at once."""

  in_process = True

  def map(self, task: Task[Item, Value], items: Sequence[Item],
          cost: Callable[[Item], float] | None = None) -> Iterator[Outcome[Value]]:
    """See `Engine`."""
    del cost
    try:
      for item in items:
        try:
          outcome = Outcome(task(item))
        except errors.OutOfMemoryError:  # Not the fault of the item.
          raise
        except task.expected as error:
          outcome = Outcome(error=error)
        yield outcome
    finally:
      task.close()

  def scratch(self) -> contextlib.AbstractContextManager[pathlib.Path | None]:
    """See `Engine`."""
    return contextlib.nullcontext()


HERE = Here()


def file_size(path: Any) -> float:
  """The size of a file in bytes, as a cost; 0 if there is no such file."""
  try:
    return float(path.stat().st_size)
  except OSError:
    return 0.0
