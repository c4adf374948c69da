"""Kills long commands at random, resumes them, and compares with an uninterrupted run."""

import contextlib
import dataclasses
import pathlib
import random
import shutil
import sys
import tempfile
from typing import Any

from tests.soak import comparing
from tests.soak import long_commands
from tests.soak import warm
from tpugraphs_rank.collect import environment

# Kills in a row before a command may end.
_IN_A_ROW = 10
# One kill in 12 hits a new process, which may be importing; the others hit a fork.
_NEW_PROCESS = 12
# Seconds in which a new process imports what a fork has already.
_IMPORT_SECONDS = 8.0
_LEFTOVERS = (".partial", ".lock")


@dataclasses.dataclass
class Result:
  """What trials showed.

  Attributes:
    kills: processes that were killed.
    at_operations: those of them that were killed before a certain operation on files.
    new_processes: those of them that were new processes and not forks.
    trials: runs that were killed several times, and ended at last.
    lost: trials in which the command could not resume, or lost what it should keep.
    different: trials whose result differs from that of an uninterrupted run.
    leftovers: trials after which a temporary file or lock remained.
    faults: what was wrong.
  """

  kills: int = 0
  at_operations: int = 0
  new_processes: int = 0
  trials: int = 0
  lost: int = 0
  different: int = 0
  leftovers: int = 0
  faults: list[str] = dataclasses.field(default_factory=list)


class Soak(contextlib.AbstractContextManager):
  """A command with its inputs and the result of an uninterrupted run."""

  def __init__(self, name: str, server: warm.Server):
    """Prepares the inputs, and runs the command as a new process and as a fork.

    Raises:
      RuntimeError: the command fails, or a fork writes something else than a new process.
    """
    self._name, self._command, self._server = name, long_commands.COMMANDS[name], server
    self._temporary = tempfile.TemporaryDirectory(prefix="soak-")
    self._folder = pathlib.Path(self._temporary.name)
    self._data, self._out = self._folder / "data", self._folder / "out"
    self._data.mkdir()
    self._names = {"data": str(self._data), "out": str(self._out),
                   **(self._command.prepare(self._data, self._prepare) or {})}
    self._seconds = self._finish(new=True).seconds
    self._whole = self._view()
    self._operations = 0
    if self._command.forks:
      done = self._finish(new=False)
      self._seconds, self._operations = done.seconds, done.operations
      names = comparing.differing(self._view(), self._whole)
      if names:
        raise RuntimeError(f"{name}: a fork and a new process differ in {names}")

  def __exit__(self, *_: object) -> None:
    self._temporary.cleanup()

  def _prepare(self, *words: str) -> None:
    self._checked(self._server.run(warm.Run("tpugraphs_rank.cli", words, self._out)))

  def _checked(self, done: warm.Done) -> warm.Done:
    if done.status:
      raise RuntimeError(f"{self._name} ended with status {done.status}: {done.messages}")
    return done

  def _begin(self) -> None:
    shutil.rmtree(self._out, ignore_errors=True)
    self._out.mkdir()
    for name in self._command.copied:
      shutil.copytree(self._data / name, self._out / name)

  def _run(self, **kill: Any) -> warm.Run:
    words = [word.format(**self._names) for word in self._command.words]
    python = str(environment.python()) if self._command.measures else sys.executable
    return warm.Run(self._command.module, words, self._out, cpu=not self._command.waits,
                    python=python, **kill)

  def _finish(self, new: bool) -> warm.Done:
    self._begin()
    return self._checked(warm.run_process(self._run()) if new else self._server.run(self._run()))

  def _view(self) -> dict[str, Any]:
    return self._command.view(self._out)

  def _killed(self, rng: random.Random, result: Result) -> bool:
    """Runs the command, and kills it at a random moment; False if it ended before."""
    forks = self._command.forks
    new = not forks or rng.randrange(_NEW_PROCESS) == 0
    operation = None
    seconds = rng.uniform(0.0, 1.0) * self._seconds
    if rng.random() < 0.25:  # Where commands write their results.
      seconds = rng.uniform(0.8, 1.0) * self._seconds
    if not new and self._operations and rng.random() < 0.5:
      operation = rng.randint(1, self._operations)
    if new:
      if forks:
        seconds = rng.uniform(0.0, 1.0) * (self._seconds + _IMPORT_SECONDS)
      done = warm.run_process(self._run(seconds=seconds))
    elif operation:
      done = self._server.run(self._run(operation=operation))
    else:
      done = self._server.run(self._run(seconds=seconds))
    if done.status is not None:
      self._checked(done)
      return False
    result.kills += 1
    result.new_processes += new and forks
    result.at_operations += operation is not None
    return True

  def trial(self, seed: int, most: int) -> Result:
    """Kills the command several times, lets it end, and compares what it wrote.

    Args:
      seed: of the moments of the kills.
      most: kills at most.
    """
    rng = random.Random(f"{self._name} {seed}")
    result = Result(trials=1)
    self._begin()
    kept: dict[str, Any] = {}
    try:
      for _ in range(min(most, _IN_A_ROW)):
        if not self._killed(rng, result):
          break
        kept = self._still_kept(kept, result)
      else:
        self._checked(warm.run_process(self._run()) if not self._command.forks
                      else self._server.run(self._run()))
      self._still_kept(kept, result)
    except RuntimeError as error:
      result.lost = 1
      result.faults.append(f"trial {seed}: {error}")
      return result
    ours = self._view()
    left = [path.name for path in self._out.rglob("*") if path.name.endswith(_LEFTOVERS)
            and str(path.relative_to(self._out)) not in self._whole]
    names = [name for name in comparing.differing(ours, self._whole)
             if not name.endswith(_LEFTOVERS)]
    result.leftovers, result.different = int(bool(left)), int(bool(names))
    if left or names:
      result.faults.append(f"trial {seed}: leftovers {left}, different {names}")
      print(f"{self._name} {result.faults[-1]}", file=sys.stderr)
    return result

  def _still_kept(self, before: dict[str, Any], result: Result) -> dict[str, Any]:
    """What the command keeps of what it has measured; notes what is missing or differs."""
    now = self._command.kept(self._out)
    lost = [name for name, value in before.items() if not _contains(now.get(name), value)]
    if lost:
      result.lost = 1
      result.faults.append(f"measurements were lost or changed: {lost}")
    return now


def _contains(now: Any, before: Any) -> bool:
  """Whether a value is kept: the same, or the same lines with others behind them."""
  return now[:len(before)] == before if isinstance(before, list) and now is not None else (
      now == before)


def total(entry: dict[str, Any], result: Result) -> None:
  """Adds the result of a trial to an entry of the results."""
  for key, value in dataclasses.asdict(result).items():
    entry[key] = entry.get(key, type(value)()) + value
