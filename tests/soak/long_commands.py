"""The long commands at their smallest sizes, with their inputs."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import pathlib
import re
from typing import Any

from tests.soak import comparing

# Runs a command that inputs come from.
_Prepare = Callable[..., None]
_IGNORED = ("train.log", "environment.json")
_SAMPLING = ("cpu_seconds", "graphs_per_cpu_second")


def _nothing(folder: pathlib.Path) -> dict[str, Any]:
  del folder
  return {}


@dataclasses.dataclass(frozen=True)
class Command:
  """A command that is killed.

  Attributes:
    words: its arguments; `{data}` is the folder of the inputs, `{out}` that of the results.
    prepare: writes the inputs into a folder; gets a function that runs a command. Returns further
      names in `words` with their values, if there are any.
    module: what `python -m` runs.
    copied: folders of inputs that the command writes to; each trial gets copies in `{out}`.
    view: what it wrote, without what differs between any two runs.
    kept: what it measured so far, which no kill may change; lists may only grow.
    forks: whether it runs in a fork. Otherwise each run is a new process.
    measures: whether it runs in the collector's environment.
    waits: whether it waits for other processes, so that its own CPU time says nothing.
  """

  words: Sequence[str]
  prepare: Callable[[pathlib.Path, _Prepare], dict[str, str] | None]
  module: str = "tpugraphs_rank.cli"
  copied: Sequence[str] = ()
  view: Callable[[pathlib.Path], dict[str, Any]] = functools.partial(
      comparing.contents, ignored=_IGNORED)
  kept: Callable[[pathlib.Path], dict[str, Any]] = _nothing
  forks: bool = True
  waits: bool = False
  measures: bool = False


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


def _kinds(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  _collection(folder, 12)
  (folder / "run.json").write_text(json.dumps({"model": {"kinds": [{"hidden_width": 3}]}}))


def _run(folder: pathlib.Path, run: _Prepare) -> None:
  _collection(folder)
  run("train", f"--run_dir={folder}/run", f"--collection={folder}/collection.json", "--epochs=1",
      *_TINY)


def _nothing_to_prepare(folder: pathlib.Path, run: _Prepare) -> None:
  del folder, run


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


def _served(folder: pathlib.Path, run: _Prepare) -> dict[str, str]:
  """A server of an archive. It ends with this process."""
  del folder, run
  from tests.data import test_download
  from tests.helpers import file_server
  server = file_server.FileServer({
      test_download.NAME: test_download.archive(test_download.contents(size=120_000))})
  server.pace = 0.01
  return {"address": server.__enter__().address}


def _without_dates(folder: pathlib.Path) -> dict[str, Any]:
  """The files of a download, without the time of the first one."""
  return comparing.contents(folder, varying=("recorded",))


def _sweep(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  _collection(folder, 6)
  (folder / "space.json").write_text(json.dumps(
      {"learning_rate": {"low": 0.001, "high": 0.01, "log": True}}))


def _two_collections(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  _collection(folder / "real", 6)
  _collection(folder / "synthetic", 4, "tile:synthetic_programs", 50)
  (folder / "run.json").write_text(json.dumps({
      "model": {"opcode_width": 2, "hidden_width": 4, "num_convolutions": 1, "head_widths": [3]},
      "batch": {"batch_size": 4, "max_configs": 6, "lists_per_graph": 2, "eval_batch_configs": 5},
      "optimizer": {"warmup_steps": 3}, "training": {"tensorboard": False}}))


def _small_generator(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  (folder / "small.json").write_text(json.dumps({
      "data": {"conditions": ["root", "size"]},
      "network": {"width": 8, "encoder_layers": 1, "node_layers": 1, "heads": 2, "edge_width": 4,
                  "node_steps": 2, "edge_steps": 2},
      "fit": {"epochs": 3, "batch_graphs": 32, "learning_rate": 0.01, "tensorboard": False}}))


def _traces(folder: pathlib.Path, run: _Prepare) -> None:
  del run
  from tests.synthesis.traces import test_compare_command
  from tpugraphs_rank.chakra import exporting
  exporting.write(folder / "real", test_compare_command.trace_dags(900, 700),
                  exporting.Settings(ranks=1))


# ---- measurements --------------------------------------------------------------------------------
#
# Times differ from run to run. What must not differ is what is measured, in which order, and
# whether it works. What is measured once must never change.


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
  """A record of a pass without its times."""
  entries = [{key: value for key, value in entry.items() if key != "runtime_ns"}
             for entry in record["configurations"]]
  return {"stem": record["stem"], "module": record["module"], "configurations": entries}


def _records(folder: pathlib.Path) -> dict[str, bytes]:
  """The files with measurements of the first two passes. Passes that disagree are repeated."""
  return {str(path.relative_to(folder)): path.read_bytes()
          for path in sorted(folder.rglob("measured/*.pass[12].json"))}


def _measured_programs(folder: pathlib.Path) -> dict[str, Any]:
  """What was measured, and which other files there are."""
  repeated = re.compile(r"\.pass[34]\.json$")
  names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
           and "compilation_cache" not in path.parts and not repeated.search(path.name)]
  return {**dict.fromkeys(names, True), **{
      name: _untimed(json.loads(content)) for name, content in _records(folder).items()}}


def _journals(folder: pathlib.Path) -> dict[str, list[str]]:
  """The complete lines of the journals of a search."""
  return {path.name: path.read_text(encoding="utf-8").split("\n")[:-1]
          for path in folder.rglob("*.jsonl")}


def _search(folder: pathlib.Path) -> dict[str, Any]:
  """How many different configurations a finished search has measured, with the default first."""
  lines = [json.loads(line) for line in _journals(folder).get("measurements.jsonl", ())]
  configurations = [line["configuration"] for line in lines]
  path = next(folder.rglob("tuned.json"), None)
  return {"different": len(set(configurations)), "all": len(configurations),
          "first": configurations[:1], "finished": bool(
              path and json.loads(path.read_text(encoding="utf-8"))["finished"]),
          "programs": sorted(path.name for path in folder.rglob("tuned.*"))}


COMMANDS: Mapping[str, Command] = {
    "pack": Command(("pack", "--collection={data}/collection.json", "--output={out}"),
                    functools.partial(_tiny_collection, graphs=120)),
    "featurize": Command(("featurize", "--input={data}/raw", "--output={out}", "--overwrite"),
                         _measured),
    "train": Command(
        ("train", "--run_dir={out}/run", "--collection={data}/collection.json", "--epochs=8",
         "--patience=8", *_TINY), _tiny_collection),
    "train kinds": Command(
        ("train", "--run_dir={out}/run", "--collection={data}/collection.json",
         "--config={data}/run.json", "--epochs=3", "--patience=3", *_TINY), _kinds),
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
         "--max_layers=12", "--output={out}/samples.npz"), _generator,
        view=functools.partial(comparing.contents, varying=_SAMPLING)),
    "download": Command(
        ("download", "--data_root={out}", "--base_url={address}", "--splits=valid",
         "--collections=layout:xla:random"), _served, view=_without_dates, waits=True),
    "layout study": Command(
        ("--output={out}/study", "--results={out}/results.json", "--rankers=default_first",
         "--folds=0,1"), _nothing_to_prepare, module="experiments.layout_folds"),
    "sweep": Command(
        ("sweep", "--output={out}/sweep", "--collection={data}/collection.json", "--trials=2",
         "--epochs=2", "--space={data}/space.json", "--prior=none", *_TINY), _sweep,
        # Optuna's journal holds times and the names of processes; the table holds its trials.
        view=functools.partial(comparing.contents, ignored=(*_IGNORED, "journal.log"))),
    "augment": Command(
        ("augment", "--collection={data}/real/collection.json", "--output={out}/a", "--seeds=1",
         "--synthetic={data}/synthetic/collection.json", "--synthetic_any_target",
         "--config={data}/run.json", "--epochs=1", "--steps_per_epoch=2"), _two_collections,
        view=functools.partial(comparing.contents, ignored=_IGNORED, varying=("cpu_seconds",)),
        waits=True),
    "synthesize": Command(
        ("synthesize", "--generate_only", "--config={data}/small.json", "--count=4",
         "--max_nodes=20", "--output={out}/s"), _small_generator),
    "chakra synthesize": Command(
        ("chakra", "synthesize", "--input={data}/real", "--output={out}/s", "--count=4",
         "--nodes=30:60", "--min_nodes=20", "--max_nodes=60", "--subgraphs=12", "--epochs=1"),
        _traces, module="tests.soak.small_traces",
        view=functools.partial(comparing.contents, ignored=_IGNORED, varying=_SAMPLING)),
    # The collectors themselves: whether a collection comes out of so few measurements is chance.
    "collect tile": Command(
        ("--output={out}/m", "--families=reduce_sum_minor", "--limit=1", "--configurations=3",
         "--budget_ms=5", "--cores=0"), _nothing_to_prepare, module="tpugraphs_rank.collect.tile",
        view=_measured_programs, kept=_records, forks=False, measures=True),
    "collect layout": Command(
        ("--output={out}/m", "--families=convolution_1d", "--limit=1", "--configurations=3",
         "--configurations_of_small_programs=3", "--budget_ms=5", "--cores=0"),
        _nothing_to_prepare, module="tpugraphs_rank.collect.layout", view=_measured_programs,
        kept=_records, forks=False, measures=True),
    "collect hlo": Command(
        ("collect", "hlo", "--hlo=bundled:transformer_block", "--random=3", "--budget_ms=5",
         "--output={out}/m"), _nothing_to_prepare, view=_measured_programs, kept=_records,
        forks=False),
    "tune": Command(
        ("tune", "--hlo=bundled:transformer_block", "--measurements=3", "--noearly",
         "--output={out}/t"), _nothing_to_prepare, view=_search, kept=_journals, forks=False),
}
