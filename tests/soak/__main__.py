"""Feeds mutated inputs to every reader, and kills every long command at random.

  ./run soak                                  everything, for at most --hours
  ./run soak --readers graph,hlo --inputs 500

It is bounded and may be interrupted: a later call continues where the last one ended. Inputs that
show a fault are kept in `tests/soak/corpus`, which the tests read again.
"""

import argparse
import collections
from collections.abc import Sequence
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
import traceback
from typing import Any

from tests.soak import inputs
from tests.soak import kills
from tests.soak import long_commands
from tests.soak import readers
from tests.soak import reading
from tests.soak import warm
from tpugraphs_rank import files
from tpugraphs_rank.training import run_directory

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
_ROOT = CORPUS.parents[2]
_BATCH = 1000
# TensorFlow keeps some megabytes for each network that it has built, until the process ends.
_BATCH_WITH_TENSORFLOW = 200
_MEMORY = "/dev/shm"  # A folder in memory: inputs are small, and there are many.
_LARGEST = 1 << 14  # Bytes of an input that is kept.


def _batch(name: str, seed: int, count: int, corpus: pathlib.Path) -> dict[str, Any]:
  """The outcomes of one batch; runs in a process of its own, whose memory is limited."""
  reader = readers.READERS[name]
  counts: collections.Counter[str] = collections.Counter()
  types: collections.Counter[str] = collections.Counter()
  faults: dict[str, str] = {}
  with tempfile.TemporaryDirectory(dir=_MEMORY if os.path.isdir(_MEMORY) else None) as temporary:
    folder = pathlib.Path(temporary)
    mutated = list(inputs.mutations(reader, seed, count, folder))
    reader.read(_sound(reader, folder))  # Imports, before the memory is limited.
    with inputs.limited_memory():
      for content in mutated:
        outcome = inputs.attempt(reader, content, folder)
        counts[outcome.kind] += 1
        if outcome.kind == inputs.REFUSED:
          types[outcome.detail] += 1
        if outcome.kind in inputs.FAULTS:
          digest = hashlib.sha256(content).hexdigest()[:12]
          faults[f"{digest}.{outcome.kind}"] = outcome.detail
          if len(content) <= _LARGEST:
            (corpus / name).mkdir(parents=True, exist_ok=True)
            (corpus / name / digest).write_bytes(content)
  return {"counts": counts, "types": types, "faults": faults}


def _sound(reader: reading.Reader, folder: pathlib.Path) -> pathlib.Path:
  content = reader.sound(folder)[0]
  (folder / reader.file).write_bytes(content)
  if reader.name == "packed_index":
    (folder / reader.file).write_text(json.dumps({"graphs": {}}))
  return folder


def _run_batch(name: str, seed: int, count: int, corpus: pathlib.Path) -> dict[str, Any]:
  """Runs a batch in a fork of this process, which has imported what readers need."""
  context = multiprocessing.get_context("fork")
  receiver, sender = context.Pipe(duplex=False)

  def work() -> None:
    with open(os.devnull, "wb") as null:  # What readers log.
      os.dup2(null.fileno(), 1)
      os.dup2(null.fileno(), 2)
    try:
      sender.send(_batch(name, seed, count, corpus))
    except Exception:
      sender.send(_ended(seed, traceback.format_exc()))

  process = context.Process(target=work)
  process.start()
  sender.close()
  try:
    return receiver.recv()
  except EOFError:
    process.join()
    return _ended(seed, f"status {process.exitcode}")
  finally:
    process.join()


def _ended(seed: int, why: str) -> dict[str, Any]:
  return {"counts": {"untyped": 1}, "types": {}, "faults": {f"batch {seed} ended early": why}}


def _stored(path: pathlib.Path) -> dict[str, Any]:
  return files.read_json(path) if path.exists() else {"readers": {}, "commands": {}}


def _store(path: pathlib.Path, section: str, name: str, entry: dict[str, Any]) -> None:
  """Replaces one entry of the results. Other soaks may write the other entries meanwhile."""
  folder = os.open(path.parent, os.O_RDONLY)
  try:
    fcntl.flock(folder, fcntl.LOCK_EX)
    stored = _stored(path)
    sections = {key: stored[key] for key in ("readers", "commands")}
    sections[section][name] = entry
    files.write_json(path, {
        **run_directory.environment(), "command": "python -m tests.soak", "seeds": [0],
        "limits": {"seconds": inputs.SECONDS, "bytes": inputs.MEMORY}, **sections})
  finally:
    os.close(folder)


def _soak_inputs(arguments: argparse.Namespace, deadline: float) -> int:
  """Soaks the readers; returns the number of faults."""
  if arguments.readers:
    readers.import_all()
  faults = 0
  for name in arguments.readers:
    entry = _stored(arguments.results)["readers"].get(
        name, {"inputs": 0, "batches": 0, "counts": {}, "types": {}, "faults": {}, "seconds": 0.0})
    while entry["inputs"] < arguments.inputs and time.monotonic() < deadline:
      most = _BATCH_WITH_TENSORFLOW if readers.READERS[name].tensorflow else _BATCH
      count = min(most, arguments.inputs - entry["inputs"])
      start = time.monotonic()
      result = _run_batch(name, entry["batches"], count, arguments.corpus)
      for key in ("counts", "types"):
        for kind, number in result[key].items():
          entry[key][kind] = entry[key].get(kind, 0) + number
      entry["faults"].update(result["faults"])
      entry["inputs"] += count
      entry["batches"] += 1
      entry["checked"] = readers.READERS[name].checked
      entry["seconds"] = round(entry["seconds"] + time.monotonic() - start, 1)
      _store(arguments.results, "readers", name, entry)
    print(f"{name:<16} {entry['inputs']:6d} inputs, {entry['counts']}", flush=True)
    faults += len(entry["faults"])
  return faults


def _soak_kills(arguments: argparse.Namespace, deadline: float) -> int:
  """Kills the commands; returns the number of faults."""
  if not arguments.commands:
    return 0
  faults = 0
  with warm.Server() as server:
    for name in arguments.commands:
      entry = _stored(arguments.results)["commands"].get(
          name, dataclasses.asdict(kills.Result()))
      is_done = lambda: entry["kills"] >= arguments.kills or entry["trials"] >= 2 * arguments.kills
      if not is_done() and time.monotonic() < deadline:
        try:
          with kills.Soak(name, server) as soak:
            # A trial may end before its first kill.
            while not is_done() and time.monotonic() < deadline:
              kills.total(entry, soak.trial(entry["trials"], arguments.kills - entry["kills"]))
              _store(arguments.results, "commands", name, entry)
        except RuntimeError as error:
          print(f"{name} cannot be soaked: {error}", file=sys.stderr, flush=True)
          faults += 1
      print(f"{name:<16} {entry}", flush=True)
      faults += sum(entry[key] for key in ("lost", "different", "leftovers"))
  return faults


def main(words: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  listed = lambda text: [word for word in text.split(",") if word]
  parser.add_argument("--results", type=pathlib.Path, default=_ROOT / "results" / "soak.json")
  parser.add_argument("--corpus", type=pathlib.Path, default=CORPUS)
  parser.add_argument("--readers", type=listed, default=list(readers.READERS))
  parser.add_argument("--commands", type=listed, default=list(long_commands.COMMANDS))
  parser.add_argument("--inputs", type=int, default=10_000, help="mutated inputs for each reader")
  parser.add_argument("--kills", type=int, default=50, help="kills of each command")
  parser.add_argument("--hours", type=float, default=6.0, help="begin nothing new after this time")
  parser.add_argument("--again", action="store_true", help="forget the results so far")
  arguments = parser.parse_args(words)
  deadline = time.monotonic() + arguments.hours * 3600
  if arguments.again:
    arguments.results.unlink(missing_ok=True)
  faults = _soak_inputs(arguments, deadline) + _soak_kills(arguments, deadline)
  print(f"{faults} faults; {arguments.results}")
  return 1 if faults else 0


if __name__ == "__main__":
  sys.exit(main())
