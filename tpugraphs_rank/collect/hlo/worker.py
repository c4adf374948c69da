"""One process in the collector's environment that answers requests, see `serve`."""

from collections.abc import Mapping
import json
import pathlib
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank import termination
from tpugraphs_rank.collect import environment
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.hlo import folder as folder_lib

_MODULE = "tpugraphs_rank.collect.hlo.serve"
_CHUNK = 1 << 16
_SECONDS_FOR_MESSAGES = 2.0
_LONGEST = 300  # Characters of a message that are shown again.
_ANSWER = {"status": str, "reason?": str, "seconds?": float, "default_seconds?": float,
           "optimised_hlo?": str}


class Worker:
  """A process that answers one request after another. The first answer says that it is ready."""

  def __init__(self, folder: pathlib.Path, variables: Mapping[str, str], *arguments: str) -> None:
    """Starts the process.

    Args:
      folder: the prepared folder.
      variables: of the environment.
      *arguments: more arguments of `serve`.

    Raises:
      OutputError: the environment cannot be made.
    """
    command = [str(environment.python()), "-m", _MODULE, "--folder", str(folder.resolve()),
               *arguments]
    self._read = b""
    self._last = ""
    with termination.sigterm_postponed():
      self._process = subprocess.Popen(
          command, env={**variables, **folder_lib.environment(folder)}, stdin=subprocess.PIPE,
          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # A thread, so that no process waits for a reader of its messages.
    self._messages = threading.Thread(target=self._show_messages, daemon=True)
    self._messages.start()

  def _show_messages(self) -> None:
    """Shows what the process writes to its standard error, and keeps the last line."""
    assert self._process.stderr is not None
    with self._process.stderr as stream:
      for line in stream:
        text = line.decode("utf-8", "replace")
        self._last = text.strip() or self._last
        sys.stderr.write(text)
        sys.stderr.flush()

  def _end_of(self, status: int) -> str:
    """How the process ended, with its last message."""
    self._messages.join(_SECONDS_FOR_MESSAGES)  # A process of its own may keep the stream open.
    ended = f"its process ended with status {status}"
    last = escaping.printable(self._last)[:_LONGEST]
    return f"{ended}; its last message is: {last}" if last else ended

  def send(self, request: Mapping[str, Any]) -> None:
    """Sends a request; `answer` waits for what it gives."""
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(json.dumps(request).encode() + b"\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      pass  # The answer says why.

  def answer(self, limit_s: float) -> dict[str, Any]:
    """The next answer; of status `slow` after the limit, and `crashed` if the process ended.

    Raises:
      KeyboardInterrupt: Ctrl-C ended the process.
    """
    process, end = self._process, time.monotonic() + limit_s
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
      selector.register(process.stdout, selectors.EVENT_READ)
      while b"\n" not in self._read:
        rest = end - time.monotonic()
        if rest <= 0:
          return {"status": "slow", "reason": f"it took more than {limit_s:.0f} s"}
        if selector.select(rest):
          content = process.stdout.read1(_CHUNK)  # type: ignore[attr-defined]
          if not content:
            status = process.wait()
            if status in (-signal.SIGINT, 130):  # Ctrl-C reaches both processes.
              raise KeyboardInterrupt
            return {"status": "crashed", "reason": self._end_of(status)}
          self._read += content
    line, _, self._read = self._read.partition(b"\n")
    stored = files.parse_json(line, "the answer of the measuring process")
    json_shapes.check(stored, _ANSWER, "the answer of the measuring process", "try again")
    return stored

  def end(self) -> None:
    """Ends the process."""
    for stream in (self._process.stdin, self._process.stdout):
      try:
        if stream is not None:
          stream.close()
      except OSError:
        pass
    processes.end_politely(self._process)
    self._messages.join(_SECONDS_FOR_MESSAGES)
