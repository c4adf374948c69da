"""Kills long commands at random times, resumes them, and compares with an uninterrupted run."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any
import zipfile

import numpy as np

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Values that depend on the time, and those that name folders.
_VARYING = frozenset({"seconds", "minutes", "time", "command", "created", "commit"})


@dataclasses.dataclass(frozen=True)
class Command:
  """A command that resumes.

  Attributes:
    words: the command; `{data}` is the folder of the inputs, `{out}` that of the results.
    prepare: writes the inputs.
    ignored: names of files whose content may differ.
    exact: whether arrays must be equal to the last bit.
  """

  words: Sequence[str]
  prepare: Callable[[pathlib.Path], None]
  ignored: frozenset[str] = frozenset({"train.log", "environment.json"})


def _collection(folder: pathlib.Path, graphs: int = 24) -> None:
  from tests import synthetic
  from tpugraphs_rank.data import npz
  seed, counts = 0, {"train": graphs, "valid": 4, "test": 4}
  for split, count in counts.items():
    for _ in range(count):
      graph = synthetic.tile_graph(seed, num_nodes=6, num_configs=12)
      npz.save_graph(folder / split / f"{graph.name}.npz", graph)
      seed += 1
  (folder / "collection.json").write_text(json.dumps({
      "name": "tile:tiny", "kind": "tile", "target": "chip", "splits": counts}))


_TINY = ("--opcode_width=2", "--hidden_width=4", "--num_convolutions=1", "--head_widths=3",
         "--batch_size=3", "--max_configs=6", "--lists_per_graph=1", "--notensorboard")


def _run(folder: pathlib.Path) -> None:
  _collection(folder)
  subprocess.run(
      _line(("train", "--run_dir={data}/run", "--collection={data}/collection.json", "--epochs=1",
             *_TINY), folder, folder), cwd=_ROOT, check=True, capture_output=True)


def _measured(folder: pathlib.Path) -> None:
  from tests.soak import readers
  content = readers.READERS["raw"].sound(folder)[0]
  for number in range(60):
    (folder / "raw").mkdir(exist_ok=True)
    (folder / "raw" / f"k{number}.pb").write_bytes(content)


def _graphs(folder: pathlib.Path) -> None:
  from tests.synthesis import small_dags
  from tpugraphs_rank.synthesis.dags import dags
  dags.save(folder / "graphs.npz", small_dags.graphs(24))


COMMANDS: Mapping[str, Command] = {
    "pack": Command(("pack", "--collection={data}/collection.json", "--output={out}"),
                    lambda folder: _collection(folder, 120)),
    "featurize": Command(("featurize", "--input={data}/raw", "--output={out}", "--overwrite"),
                         _measured),
    "train": Command(
        ("train", "--run_dir={out}/run", "--collection={data}/collection.json", "--epochs=30",
         "--patience=30", *_TINY), _collection),
    "predict": Command(("predict", "--run_dir={data}/run", "--split=test", "--output={out}/p.csv"),
                       _run),
    "evaluate": Command(
        ("evaluate", "--run_dir={data}/run", "--output={out}/e", "--baselines=random"), _run),
    "layerdag train": Command(
        ("layerdag", "train", "--run_dir={out}/run", "--graphs={data}/graphs.npz", "--width=8",
         "--edge_width=4", "--heads=2", "--encoder_layers=1", "--node_layers=1", "--node_steps=2",
         "--edge_steps=2", "--batch_graphs=8", "--epochs=20", "--patience=20", "--validate_every=2",
         "--warmup_steps=2", "--conditions=size", "--notensorboard"), _graphs),
}


def _line(words: Sequence[str], data: pathlib.Path, out: pathlib.Path) -> list[str]:
  return [sys.executable, "-m", "tpugraphs_rank.cli",
          *(word.format(data=data, out=out) for word in words)]


def _run_to(command: Command, data: pathlib.Path, out: pathlib.Path, seconds: float | None) -> bool:
  """Runs a command, and kills it and its children after some seconds; whether it was killed.

  Raises:
    CalledProcessError: the command failed.
  """
  line = _line(command.words, data, out)
  process = subprocess.Popen(line, cwd=_ROOT, text=True, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, start_new_session=True,
                             env={**os.environ, "TPUGRAPHS_RANK_CACHE": ""})
  try:
    _, messages = process.communicate(timeout=seconds)
  except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return True
  if process.returncode:
    raise subprocess.CalledProcessError(process.returncode, line, stderr=messages)
  return False


def trial(command: Command, seed: int, most: int) -> dict[str, int]:
  """Kills a command several times, lets it end, and compares what it wrote.

  Args:
    command: the command.
    seed: of the times of the kills.
    most: kills at most.

  Returns:
    The numbers of `kills` (0 if the command ended before its time), `trials` (1), and trials in
    which the result was `lost` (the command could not resume), `different`, or had `leftovers`.
  """
  rng = random.Random(seed)
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    data, whole, out = (folder / name for name in ("data", "whole", "out"))
    for path in (data, whole, out):
      path.mkdir()
    command.prepare(data)
    start = time.monotonic()
    _run_to(command, data, whole, None)
    seconds = time.monotonic() - start
    killed = 0
    result = {"kills": 0, "trials": 1, "lost": 0, "different": 0, "leftovers": 0}
    try:
      for _ in range(min(most, 10)):
        if not _run_to(command, data, out, rng.uniform(0.1, 1.0) * seconds):
          break
        killed += 1
      _run_to(command, data, out, None)
    except subprocess.CalledProcessError as error:
      print(error.stderr, file=sys.stderr)
      result["lost"] = 1
    result["kills"] = killed
    ours, theirs = contents(out, command.ignored), contents(whole, command.ignored)
    left = [name for name in ours if name.endswith((".partial", ".lock")) and name not in theirs]
    result["leftovers"] = int(bool(left))
    differing = [name for name in {*ours, *theirs} - {*left} if ours.get(name) != theirs.get(name)]
    result["different"] = int(bool(differing) and not result["lost"])
    if left or differing:
      print(f"leftovers {left}, different {differing}", file=sys.stderr)
  return result


def contents(folder: pathlib.Path, ignored: frozenset[str]) -> dict[str, Any]:
  """The files of a folder by name, without what depends on time and place."""
  return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))
          if path.is_file() and path.name not in ignored}


def _content(path: pathlib.Path) -> Any:
  if path.suffix == ".json":
    return _timeless(json.loads(path.read_text(encoding="utf-8")))
  if path.suffix == ".csv":
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    varying = [place for place, name in enumerate(lines[0]) if name in _VARYING] if lines else []
    return [[word for place, word in enumerate(line) if place not in varying] for line in lines]
  if path.suffix == ".npz":
    found = {}
    with zipfile.ZipFile(path):
      with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
          array = stored[key]
          if array.dtype.kind == "U" and array.size == 1 and str(array).startswith("{"):
            found[key] = _timeless(json.loads(str(array)))
          else:
            found[key] = (array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest())
    return found
  return path.read_bytes()


def _timeless(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _timeless(inner) for key, inner in value.items() if key not in _VARYING}
  if isinstance(value, list):
    return [_timeless(inner) for inner in value]
  return value
