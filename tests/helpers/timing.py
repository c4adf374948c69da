"""Limits on the time of a piece of code."""

from collections.abc import Iterator
import contextlib
import gc
import time


@contextlib.contextmanager
def takes_at_most(seconds: float) -> Iterator[None]:
  """Checks that the block needs at most this CPU time, without that of cleaning up after others.

  A full collection of what all tests of a process have left takes seconds.
  """
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    start = time.process_time()
    yield
    taken = time.process_time() - start
  finally:
    if was_enabled:
      gc.enable()
  assert taken <= seconds, f"took {taken:.2f} CPU seconds; expected at most {seconds}"
