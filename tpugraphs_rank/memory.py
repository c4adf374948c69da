"""Memory that an input needs, compared with a limit and with what is free, before it is used."""

import pathlib
import resource

from tpugraphs_rank import errors

# Below this, the free memory is not looked up.
_SMALL = 64 * 2**20


def check(needed: int, limit: int, what: str) -> None:
  """Checks a number of bytes before that many are allocated.

  Args:
    needed: the bytes.
    limit: the most that any machine should spend on it.
    what: the file, and the key if it is about one.

  Raises:
    LimitError: it is above the limit.
    OutOfMemoryError: it is more memory than is free.
  """
  if needed > limit:
    raise errors.LimitError(
        f"{what} unpacks to {needed:,} bytes; the limit is {limit:,}; expected a smaller file: "
        "check where it comes from")
  if needed < _SMALL:
    return
  free = available()
  if free is not None and needed > free:
    raise errors.OutOfMemoryError(
        f"memory ran out: {what} unpacks to {needed:,} bytes, and {free:,} bytes of memory are "
        "free")


def ran_out(error: BaseException) -> bool:
  """Whether Python, NumPy or TensorFlow could not allocate memory."""
  return isinstance(error, MemoryError) or (
      type(error).__name__ == "ResourceExhaustedError"
      and type(error).__module__.startswith("tensorflow"))


def is_limited() -> bool:
  """Whether `ulimit -v` limits the memory of this process."""
  return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def available() -> int | None:
  """Bytes of memory that this process may still use; None where the system does not state it."""
  figures = [_field("/proc/meminfo", "MemAvailable:")]
  allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
  used = _field("/proc/self/status", "VmSize:")
  if allowed != resource.RLIM_INFINITY and used is not None:
    figures.append(max(allowed - used, 0))
  return min((figure for figure in figures if figure is not None), default=None)


def _field(path: str, name: str) -> int | None:
  """A figure of a file of the proc file system, in bytes."""
  try:
    for line in pathlib.Path(path).read_text(encoding="ascii", errors="replace").splitlines():
      if line.startswith(name):
        return int(line.split()[1]) * 1024
  except (OSError, ValueError, IndexError):
    pass
  return None
