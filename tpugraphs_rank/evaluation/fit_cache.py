"""The cache of fits that depend on the data only.

Such fits take seconds to minutes. Their results are kept under a hash of everything that they
depend on, so that other runs on the same data reuse them. The files hold JSON and plain arrays;
reading them executes no code.
"""

from collections.abc import Callable, Iterable
import hashlib
import logging
import os
import pathlib
from typing import Any, TypeVar

import numpy as np
import platformdirs

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

_logger = logging.getLogger(__name__)

VARIABLE = "TPUGRAPHS_RANK_CACHE"
T = TypeVar("T")
# What readers of the cache may raise for a damaged file.
_DAMAGE = (errors.DataError, errors.MissingDataError, KeyError, IndexError, TypeError, ValueError)


def folder(name: str) -> pathlib.Path | None:
  """The folder for one kind of fit; None if TPUGRAPHS_RANK_CACHE is empty, i.e. no cache."""
  chosen = os.environ.get(VARIABLE)
  if chosen is None:
    chosen = platformdirs.user_cache_dir("tpugraphs_rank", appauthor=False)
  return files.expanded(chosen) / name if chosen else None


def digest(*parts: Any) -> str:
  """A hash of arrays and other values: the first 32 digits of a SHA-256.

  The parts should include the versions of libraries that may change a fit.
  """
  result = hashlib.sha256()
  for part in parts:
    if isinstance(part, np.ndarray):
      result.update(repr((part.shape, part.dtype.str)).encode())
      result.update(np.ascontiguousarray(part).data)
    else:
      result.update(repr(part).encode())
  return result.hexdigest()[:32]


def reuse(name: str, parts: Callable[[], Iterable[Any]], suffix: str, compute: Callable[[], T],
          read: Callable[[pathlib.Path], T], write: Callable[[pathlib.Path, T], None]) -> T:
  """The result of a fit, from the cache if it has it; otherwise computed, and kept there.

  Args:
    name: the kind of fit, for messages, and the name of its folder.
    parts: everything that the result depends on; see `digest`. Not called without a cache.
    suffix: of the file.
    compute: the fit.
    read: reads the result from a file. It raises DataError, KeyError, IndexError, TypeError or
      ValueError if the file is damaged, which is then computed again.
    write: writes the result into a file. A cache that cannot be written is no reason to fail.
  """
  where = folder(name)
  if where is None:
    return compute()
  path = where / (digest(*parts()) + suffix)
  if path.is_file():
    try:
      return read(path)
    except _DAMAGE as error:
      _logger.warning("%s: ignored a damaged file of the cache, %s: %s", name, path,
                      escaping.printable(str(error)))
  result = compute()
  try:
    write(path, result)
  except errors.OutputError as error:
    _logger.warning("%s: results are not cached: %s; set %s to another folder, or to nothing to "
                    "disable the cache", name, error, VARIABLE)
  return result
