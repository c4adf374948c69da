"""Tasks for tests of engines. They are in a module that other processes can import, too."""

import dataclasses
import functools
import logging
import os
import pathlib
import signal

from tpugraphs_rank import errors
from tpugraphs_rank import work

_logger = logging.getLogger("tpugraphs_rank.tests")


@dataclasses.dataclass(frozen=True)
class Square(work.Task[int, int]):
  """Squares a number. Refuses 13, fails on 14, kills its process on 15, lacks memory for 31.

  Attributes:
    closed: a file that exists once a task is closed.
    expected: ConfigErrors besides DataErrors.
  """

  closed: pathlib.Path | None = None
  expected = (errors.DataError, errors.ConfigError)

  @functools.cached_property
  def _exponent(self) -> int:
    return 2

  def __call__(self, item: int) -> int:
    _logger.info("squares %d", item)
    if item == 13:
      raise errors.ConfigError("13: expected another number")
    if item == 14:
      raise ZeroDivisionError("14 is a fault")
    if item == 15:
      os.kill(os.getpid(), signal.SIGKILL)
    if item == 31:
      raise MemoryError
    return item ** self._exponent

  def close(self) -> None:
    if self.closed is not None:
      self.closed.touch()
