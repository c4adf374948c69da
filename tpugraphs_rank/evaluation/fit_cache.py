"""The cache of fits that depend on the data only.

Such fits take seconds to minutes. Their results are kept under a hash of everything that they
depend on, so that other runs on the same data reuse them. The files hold JSON and plain arrays;
reading them executes no code.
"""

from collections.abc import Callable
import hashlib
import logging
import os
import pathlib
from typing import Any

import numpy as np
import platformdirs

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

_logger = logging.getLogger(__name__)

VARIABLE = "TPUGRAPHS_RANK_CACHE"


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


def warn_of_damage(name: str, path: pathlib.Path, error: object = "") -> None:
  """Logs that a file of the cache is ignored."""
  _logger.warning("%s: ignored a damaged file of the cache, %s%s", name, path,
                  f": {escaping.printable(str(error))}" if error else "")


def try_to_write(name: str, write: Callable[[], None]) -> None:
  """Calls a function that writes; a cache that cannot be written is no reason to fail."""
  try:
    write()
  except errors.OutputError as error:
    _logger.warning("%s: results are not cached: %s; set %s to another folder, or to nothing to "
                    "disable the cache", name, error, VARIABLE)
