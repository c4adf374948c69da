"""Folders of traces that are written as a whole, or not at all."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import graphs


@contextlib.contextmanager
def staged(folder: files.PathLike) -> Iterator[pathlib.Path]:
  """A folder to write to; what it holds at the end moves to `folder`, after an error nothing does.

  Args:
    folder: without traces so far; it is created if necessary.

  Raises:
    OutputError: the folder has traces already, or cannot be written.
  """
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise errors.OutputError(
        f"{folder} is a file; expected a folder for the traces; choose another")
  staging = folder / f".traces-{os.getpid()}.partial"
  try:
    old = sorted(path.name for path in (folder.iterdir() if folder.exists() else ())
                 if path.name.endswith(graphs.SUFFIXES))
    if old:
      raise errors.OutputError(
          f"{folder} has traces already, such as {old[0]}; simulators would read old and new ones "
          "together; choose another folder, or remove them")
    is_new = not folder.exists()
    staging.mkdir(parents=True)
    yield staging
    for path in sorted(staging.iterdir()):
      os.replace(path, folder / path.name)
  except OSError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise errors.OutputError(
        f"cannot write traces to {folder}: {error.strerror}; choose a folder that you can write to"
        ) from error
  finally:
    shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError, UnboundLocalError):
      if is_new:
        folder.rmdir()  # Only if nothing was written.
