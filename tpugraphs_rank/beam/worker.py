"""A worker process on this machine: Beam's own one, without its log lines about itself.

It ends with the process that started it, even if that one was killed.
"""

import ctypes
import logging
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main() -> None:
  """Runs the worker until its pipeline ends."""
  if sys.platform == "linux":
    parent = os.getppid()
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
  sdk_worker_main.main([])


if __name__ == "__main__":
  main()
