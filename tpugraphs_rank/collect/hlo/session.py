"""A process in the collector's environment that measures configurations one by one."""

import json
import pathlib
import selectors
import signal
import subprocess
import time
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import termination
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol

_MODULE = "tpugraphs_rank.collect.hlo.serve"
_CHUNK = 1 << 16


class Session:
  """Measures configurations of the program in a folder. Use it in a `with` statement.

  A configuration on which the process ends, or that takes too long, is reported as such, and the
  next one gets a new process.
  """

  def __init__(self, folder: pathlib.Path, source: str, seed: int = 0, limit_s: float = 300.0
               ) -> None:
    """Starts nothing yet.

    Args:
      folder: the prepared folder, see `prepare`.
      source: the program's name in messages.
      seed: of the order of measurements.
      limit_s: seconds after which compiling and timing one configuration is abandoned.
    """
    self._folder, self._source, self._seed, self._limit = folder, source, seed, limit_s
    self._process: subprocess.Popen[bytes] | None = None
    self._variables = environment.process_variables()
    self._read = b""

  def __enter__(self) -> "Session":
    self._environment = self._variables.__enter__()
    return self

  def __exit__(self, *reason: Any) -> None:
    try:
      self._end()
    finally:
      self._variables.__exit__(*reason)

  def _start(self) -> None:
    command = [str(environment.python()), "-m", _MODULE, "--folder", str(self._folder.resolve()),
               "--seed", str(self._seed)]
    self._read = b""
    with termination.sigterm_postponed():
      self._process = subprocess.Popen(
          command, env={**self._environment, **protocol.LAYOUT_ENVIRONMENT}, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE)
    ready = self._answer()
    if ready["status"] != "ready":
      self._end()
      raise errors.DataError(
          ready["reason"] if ready["status"] == "failed" else
          f"{self._source}: the default configuration cannot be measured: {ready['reason']}")

  def ask(self, do: str, layouts: str) -> dict[str, Any]:
    """Sends a request, see `serve`, and returns the answer.

    Its `status` may also be `crashed` or `slow`.

    Raises:
      DataError: the default cannot be measured.
      OutputError: the environment cannot be made.
    """
    if self._process is None:
      self._start()
    assert self._process is not None and self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps({"do": do, "layouts": layouts}).encode() + b"\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # The answer says why.
    answer = self._answer()
    if answer["status"] in ("crashed", "slow"):
      self._end()
    return answer

  def _answer(self) -> dict[str, Any]:
    """The next line of the process, or why there is none."""
    process, end = self._process, time.monotonic() + self._limit
    assert process is not None and process.stdout is not None
    with selectors.DefaultSelector() as selector:
      selector.register(process.stdout, selectors.EVENT_READ)
      while b"\n" not in self._read:
        rest = end - time.monotonic()
        if rest <= 0:
          return {"status": "slow", "reason": f"it took more than {self._limit:.0f} s"}
        if selector.select(rest):
          content = process.stdout.read1(_CHUNK)  # type: ignore[attr-defined]
          if not content:
            status = process.wait()
            if status in (-signal.SIGINT, 130):  # Ctrl-C reaches both processes.
              raise KeyboardInterrupt
            return {"status": "crashed", "reason": f"its process ended with status {status}"}
          self._read += content
    line, _, self._read = self._read.partition(b"\n")
    return files.parse_json(line, "the answer of the measuring process")

  def _end(self) -> None:
    process, self._process = self._process, None
    if process is not None:
      for stream in (process.stdin, process.stdout):
        try:
          if stream is not None:
            stream.close()
        except OSError:
          pass
      processes.end_politely(process)
