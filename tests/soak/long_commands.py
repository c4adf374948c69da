"""The long commands at their smallest sizes, with their inputs."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

from tests.soak import comparing

# Runs a command that inputs come from.
_Prepare = Callable[..., None]
_IGNORED = ("train.log", "environment.json")


def _nothing(folder: pathlib.Path) -> dict[str, Any]:
  del folder
  return {}


@dataclasses.dataclass(frozen=True)
class Command:
  """A command that is killed.

  Attributes:
    words: its arguments; `{data}` is the folder of the inputs, `{out}` that of the results.
    prepare: writes the inputs into a folder; gets a function that runs a command.
    module: what `python -m` runs.
    copied: folders of inputs that the command writes to; each trial gets copies in `{out}`.
    view: what it wrote, without what differs between any two runs.
    kept: what it measured so far, which no kill may change; lists may only grow.
    forks: whether it runs in a fork. Otherwise each run is a new process.
    waits: whether it waits for other processes, so that its own CPU time says nothing.
  """

  words: Sequence[str]
  prepare: Callable[[pathlib.Path, _Prepare], None]
  module: str = "tpugraphs_rank.cli"
  copied: Sequence[str] = ()
  view: Callable[[pathlib.Path], dict[str, Any]] = functools.partial(
      comparing.contents, ignored=_IGNORED)
  kept: Callable[[pathlib.Path], dict[str, Any]] = _nothing
  forks: bool = True
  waits: bool = False


_TINY = ("--opcode_width=2", "--hidden_width=4", "--num_convolutions=1", "--head_widths=3",
         "--batch_size=3", "--max_configs=6", "--lists_per_graph=1", "--notensorboard")
_TINY_LAYERDAG = (
    "--width=8", "--edge_width=4", "--heads=2", "--encoder_layers=1", "--node_layers=1",
    "--node_steps=2", "--edge_steps=2", "--batch_graphs=8", "--warmup_steps=2",
    "--conditions=size", "--notensorboard")


def _collection(folder: pathlib.Path, graphs: int = 24, name: str = "tile:tiny",
                seed: int = 0) -> None:
  from tests import synthetic
  from tpugraphs_rank.data import npz
  counts = {"train": graphs, "valid": 4, "test": 4}
  for split, count in counts.items():
    for _ in range(count):
      graph = synthetic.tile_graph(seed, num_nodes=6, num_configs=12)
      npz.save_graph(folder / split / f"{graph.name}.npz", graph)
      seed += 1
  (folder / "collection.json").write_text(json.dumps({
      "name": name, "kind": "tile", "target": "chip", "splits": counts}))


def _tiny_collection(folder: pathlib.Path, run: _Prepare, graphs: int = 24) -> None:
  del run
  _collection(folder, graphs)


def _run(folder: pathlib.Path, run: _Prepare) -> None:
  _collection(folder)
  run("train", f"--run_dir={folder}/run", f"--collection={folder}/collection.json", "--epochs=1",
      *_TINY)


def _measured(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  from tests.soak import readers
  content = readers.READERS["raw"].sound(folder)[0]
  (folder / "raw").mkdir()
  for number in range(60):
    (folder / "raw" / f"k{number}.pb").write_bytes(content)


def _graphs(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  from tests.synthesis import small_dags
  from tpugraphs_rank.synthesis.dags import dags
  dags.save(folder / "graphs.npz", small_dags.graphs(24))


def _generator(folder: pathlib.Path, run: _Prepare) -> None:
  _graphs(folder, run)
  run("layerdag", "train", f"--run_dir={folder}/run", f"--graphs={folder}/graphs.npz", "--epochs=1",
      "--patience=1", "--validate_every=1", *_TINY_LAYERDAG)


COMMANDS: Mapping[str, Command] = {
    "pack": Command(("pack", "--collection={data}/collection.json", "--output={out}"),
                    functools.partial(_tiny_collection, graphs=120)),
    "featurize": Command(("featurize", "--input={data}/raw", "--output={out}", "--overwrite"),
                         _measured),
    "train": Command(
        ("train", "--run_dir={out}/run", "--collection={data}/collection.json", "--epochs=8",
         "--patience=8", *_TINY), _tiny_collection),
    "predict": Command(("predict", "--run_dir={data}/run", "--split=test", "--output={out}/p.csv"),
                       _run),
    "evaluate": Command(
        ("evaluate", "--run_dir={out}/run", "--output={out}/e", "--baselines=random"), _run,
        copied=("run",)),
    "layerdag train": Command(
        ("layerdag", "train", "--run_dir={out}/run", "--graphs={data}/graphs.npz", "--epochs=6",
         "--patience=6", "--validate_every=2", *_TINY_LAYERDAG), _graphs),
    "layerdag sample": Command(
        ("layerdag", "sample", "--run_dir={data}/run", "--count=8", "--max_nodes=60",
         "--max_layers=12", "--output={out}/samples.npz"), _generator),
}
