"""Feeds mutated inputs to a reader, and classifies what happens."""

from collections.abc import Iterator
import contextlib
import pathlib
import random
import resource
import signal
import time
import traceback
from typing import NamedTuple
import warnings

from tests.soak import reading
from tpugraphs_rank import errors

SECONDS = 2.0
MEMORY = 1 << 30
# An input that takes this long is stopped: CPU time, and time on a machine that does other things.
_STOP_SECONDS = 20
_STOP_WAITING = 120

ACCEPTED, REFUSED = "accepted", "refused"
FAULTS = ("untyped", "slow", "memory", "wrong")


class Outcome(NamedTuple):
  """What a reader did with an input: accepted, refused, or one of FAULTS, and more about it."""

  kind: str
  detail: str = ""


class _Stopped(BaseException):
  pass


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
  """Limits the memory of this process to what it uses and MEMORY."""
  with open("/proc/self/statm", encoding="ascii") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
  before = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(reader: reading.Reader, content: bytes, folder: pathlib.Path) -> Outcome:
  """Reads one input."""
  (folder / reader.file).write_bytes(content)

  def stop(*_: object) -> None:
    raise _Stopped

  before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
  signal.alarm(_STOP_WAITING)
  signal.setitimer(signal.ITIMER_PROF, _STOP_SECONDS)
  start = time.process_time()
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      reader.read(folder)
    outcome = Outcome(ACCEPTED)
  except errors.OutOfMemoryError as error:
    outcome = Outcome("memory", str(error))
  except errors.TpuGraphsRankError as error:
    message = str(error)
    outcome = Outcome(REFUSED, type(error).__name__)
    if not message or not message.replace("\n", "").isprintable():
      outcome = Outcome("untyped", f"the message is not printable: {message!r}")
  except reading.WrongAcceptance as error:
    outcome = Outcome("wrong", str(error))
  except _Stopped:
    outcome = Outcome("slow", f"stopped after {time.process_time() - start:.0f} s of CPU time")
  except MemoryError:
    outcome = Outcome("memory", traceback.format_exc(limit=-3))
  except Exception:
    outcome = Outcome("untyped", traceback.format_exc(limit=-4))
  finally:
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    for number, handler in before.items():
      signal.signal(number, handler)
  seconds = time.process_time() - start
  if seconds > SECONDS and outcome.kind in (ACCEPTED, REFUSED):
    outcome = Outcome("slow", f"{seconds:.1f} s of CPU time")
  return outcome


def mutations(reader: reading.Reader, seed: int, count: int, folder: pathlib.Path
              ) -> Iterator[bytes]:
  """Mutated inputs; the same for the same seed."""
  sound = reader.sound(folder)
  rng = random.Random(f"{reader.name} {seed}")
  for number in range(count):
    yield reader.mutate(sound[number % len(sound)], rng)
