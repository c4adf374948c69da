"""A worker process on this machine: Beam's own one, without its log lines about itself.

    python -m tpugraphs_rank.beam.worker FOLDER PARENT

It notes in the pipeline's folder that it runs, so that its death is noticed. It ends with the
process that started it, even if that one was killed.
"""

import ctypes
import logging
import os
import pathlib
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_NOTE = "worker-"
_STOP = "stop"


def dead(folder: pathlib.Path) -> list[int]:
  """The processes of the workers that ended before the pipeline told them to."""
  return [pid for pid in _noted(folder) if not _is_alive(pid)]


def stop(folder: pathlib.Path) -> list[int]:
  """Keeps further workers from starting; returns the processes of those that run."""
  (folder / _STOP).touch()
  noted = _noted(folder)
  for pid in noted:
    (folder / f"{_NOTE}{pid}").unlink(missing_ok=True)
  return [pid for pid in noted if _is_alive(pid)]


def command(folder: pathlib.Path) -> list[str]:
  """The command line of a worker of a new pipeline in the folder."""
  (folder / _STOP).unlink(missing_ok=True)
  return [sys.executable, "-m", __name__, str(folder), str(os.getpid())]


def _noted(folder: pathlib.Path) -> list[int]:
  return [int(path.name.removeprefix(_NOTE)) for path in folder.glob(f"{_NOTE}*")]


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except OSError:
    return False
  try:  # A process that ended exists until its parent asks for its status.
    status = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
  except OSError:
    return True  # Not Linux.
  return status.rpartition(")")[2].split()[0] != "Z"


def main(folder: pathlib.Path, parent: int) -> None:
  """Runs the worker until its pipeline ends, or the process `parent`."""
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It ended in the meantime.
      return
  # Ctrl-C reaches all processes of a terminal. The one that runs the pipeline ends its workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # With this handler, Beam adds none that writes to the standard error. It sends its log lines to
  # the process that runs the pipeline as well.
  logging.getLogger().addHandler(logging.NullHandler())
  logging.disable(logging.WARNING)  # That clients of Google Cloud are not there.
  from apache_beam.runners.worker import sdk_worker_main
  logging.disable(logging.NOTSET)
  logging.getLogger(sdk_worker_main.__name__).setLevel(logging.ERROR)
  note = folder / f"{_NOTE}{os.getpid()}"
  note.touch()
  if (folder / _STOP).exists():
    return
  sdk_worker_main.main([])
  note.unlink(missing_ok=True)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
