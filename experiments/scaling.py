"""Measures packing and predicting with Apache Beam in 1, 2 and more processes of this machine.

  python -m experiments.scaling
  python -m experiments.scaling --processes 0,1,2,4 --graphs 16 --repeats 3

Writes results/scaling.json. 0 processes means without Beam, in the command's own process. Each case
runs in a process of its own and with one thread in each process, so that one process uses one core.
The graphs are copies of one synthetic layout program for each part. Each case is measured with few
configurations as well, which gives the seconds of its start: Beam, its workers, loading the run.
The results of all cases are compared byte by byte. Run nothing else at the same time.

Before that it measures the costs of the model in `experiments.capacity` on graphs of another size
in one process: CPU seconds of a configurable node's layout in packing, and of a node under a
configuration in prediction. `experiments.capacity` compares what follows from them with the cases.

The efficiency of p processes is t / (p T): t and T are the seconds without Beam and with p
processes. It is given for whole cases, and for what is left of each after its start, which is what
counts for long work. `cpu_efficiency` is t / T of the CPU seconds after the start: other programs
on the machine influence it less.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

from absl import flags
import numpy as np

from experiments.benchmarks import cases
from experiments.benchmarks import packing
from experiments.benchmarks import programs
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank import work
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import npz
from tpugraphs_rank.data import packed
from tpugraphs_rank.data import registry

PARTS = ("packing", "predicting")
RUN = "bundled:layout_xla_cpu_mixed"
# (configurations, configurable nodes, nodes) of the program that is packed: a tenth of the largest
# public file.
_PACKED = (10_004, 121, 2_000)
# (nodes, configurations) of the program that is scored.
_SCORED = (10_000, 250)
# The program that the start is measured with: as large as the other, so that the same functions are
# traced, but with few configurations. Each process gets one.
_START = (10_000, 6)
_MOST_PROCESSES = 64
# The same of the program whose cost per configuration is measured: another of the largest public
# files, a tenth of it, and a program of twice the nodes and configurations.
_COST_PACKED = (1_076, 2_251, 15_000)
_COST_SCORED = (20_000, 500)
_SECONDS = ("wall_s", "cpu_s", "start_wall_s", "start_cpu_s")
_ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS",
               "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("processes", ["0", "1", "2"], "Numbers of worker processes; 0: without Beam.")
  flags.DEFINE_integer("graphs", 24, "Number of graphs in each part.", lower_bound=1)
  flags.DEFINE_integer("repeats", 1, "Repeats of each case.", lower_bound=1)
  flags.DEFINE_string("results", "results/scaling.json", "The file to write.")
  flags.DEFINE_string("case", None, "One case; for internal use.")


def one_case(part: str, processes: int, folder: pathlib.Path) -> dict[str, Any]:
  """Runs a part in this process, or with workers.

  Returns:
    Its seconds, its CPU seconds (of this process and the workers), and a hash of what it wrote.
  """
  before, started = _cpu_seconds(), time.perf_counter()
  engine: work.Engine = work.HERE
  if processes:
    from tpugraphs_rank.beam import engine as beam_engine
    engine = beam_engine.BeamEngine("DirectRunner", [
        f"--direct_num_workers={processes}", "--direct_running_mode=multi_processing"])
  sources = sorted((folder / part).glob("*.npz"))
  if part.endswith("-start"):
    sources = sources[:max(processes, 1)]
  collection = registry.Collection("layout:scaling", "layout", "synthetic", {"all": len(sources)})
  with tempfile.TemporaryDirectory(dir=folder) as name:
    output = pathlib.Path(name)
    if part.startswith("predicting"):
      from tpugraphs_rank.training import prediction
      from tpugraphs_rank.training import run
      prediction.predict(run.load_run(RUN), collections.Split(collection, "all", sources),
                         folder=output, engine=engine)
    else:
      packed.pack_splits(collection, [packed.Part("all", sources, output)], engine=engine)
    seconds = time.perf_counter() - started
    return {"wall_s": seconds, "cpu_s": _cpu_seconds() - before, "hash": _hash(output)}


def _cpu_seconds() -> float:
  usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _hash(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  for path in sorted(folder.rglob("*")):
    if path.is_file():
      digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
  return digest.hexdigest()[:32]


def write_programs(folder: pathlib.Path, graphs: int) -> None:
  """Writes the graphs of each part into folders that `one_case` reads: cases, starts and costs."""
  for part in PARTS:
    for name in (part, f"{part}-start", f"{part}-cost"):
      (folder / name).mkdir(parents=True)
    _save(folder / f"{part}-start" / "g0.npz", *_START)
  packing.write_source(folder / "packing" / "g0.npz", *_PACKED)
  packing.write_source(folder / "packing-cost" / "g0.npz", *_COST_PACKED)
  _save(folder / "predicting" / "g0.npz", *_SCORED)
  _save(folder / "predicting-cost" / "g0.npz", *_COST_SCORED)
  for part in PARTS:
    for name, count in ((part, graphs), (f"{part}-start", _MOST_PROCESSES)):
      for number in range(1, count):
        os.link(folder / name / "g0.npz", folder / name / f"g{number}.npz")


def _save(path: pathlib.Path, nodes: int, configs: int) -> None:
  graph = programs.program(nodes, 0.13, configs)
  feat = graph.node_config_feat.astype(np.float32)
  npz.save_graph(path, dataclasses.replace(graph, node_config_feat=feat))


def costs(folder: pathlib.Path) -> dict[str, float]:
  """CPU seconds of one process after its start, by part; see `experiments.capacity.check`.

  Returns:
    `packing`: of a configurable node under one configuration; `predicting`: of any node.
  """
  units = {"packing": _COST_PACKED[0] * _COST_PACKED[1],
           "predicting": _COST_SCORED[0] * _COST_SCORED[1]}
  spent = {}
  for part in PARTS:
    start, done = (cases.run("experiments.scaling", f"{part}-{kind}", 0, folder)
                   for kind in ("start", "cost"))
    spent[part] = (done["cpu_s"] - start["cpu_s"]) / units[part]
  return spent


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Medians over repeats of each part and number of processes, with efficiencies.

  Args:
    rows: `part`, `processes` and, each for the whole case and its start, `wall_s`, `cpu_s`,
      `start_wall_s` and `start_cpu_s`.
  """
  medians = {}
  for key in dict.fromkeys((row["part"], row["processes"]) for row in rows):
    own = [row for row in rows if (row["part"], row["processes"]) == key]
    medians[key] = {name: statistics.median(row[name] for row in own) for name in _SECONDS}
  table = []
  for (part, processes), figures in medians.items():
    entry: dict[str, Any] = {"part": part, "processes": processes, **figures}
    alone = medians.get((part, 0))
    if alone is not None and processes:
      entry["efficiency"] = alone["wall_s"] / (processes * figures["wall_s"])
      for name, seconds, used in (("efficiency_after_start", "wall_s", processes),
                                  ("cpu_efficiency", "cpu_s", 1)):
        before, after = (one[seconds] - one[f"start_{seconds}"] for one in (alone, figures))
        # Work that takes less than its start says nothing.
        entry[name] = before / (used * after) if before > 0 and after > 0 else None
    table.append(entry)
  return table


def table(results: dict[str, Any]) -> str:
  """The published table, with a note if other programs used the machine."""
  shown = lambda value: "" if value is None else f"{value:.2f}"
  text = tables.markdown(
      ["", "worker processes", "seconds", "of these, the start", "CPU seconds", "efficiency",
       "efficiency after the start", "the same in CPU seconds"],
      [[row["part"], str(row["processes"] or "without Beam"), f"{row['wall_s']:.1f}",
        f"{row['start_wall_s']:.1f}", f"{row['cpu_s']:.1f}", shown(row.get("efficiency")),
        shown(row.get("efficiency_after_start")), shown(row.get("cpu_efficiency"))]
       for row in results["summary"]])
  if results["load"] > 0.25 * results["cores"]:
    text += (f"\nThe load was {results['load']:.1f} on {results['cores']} cores just before this "
             "measurement. If other programs ran on, only the CPU seconds and the last column mean "
             "something.\n")
  return text


def main(argv: list[str]) -> None:
  """Runs the cases."""
  values = flags.FLAGS
  if values.case:
    part, processes, folder = values.case.split(",")
    with contextlib.redirect_stdout(None):
      done = one_case(part, int(processes), pathlib.Path(folder))
    print(json.dumps(done))
    return
  os.environ.update(dict.fromkeys(_ONE_THREAD, "1"), TF_CPP_MIN_LOG_LEVEL="3")
  from tpugraphs_rank.training import run_directory
  results: dict[str, Any] = {
      **run_directory.environment(), "repeats": values.repeats, "load": os.getloadavg()[1],
      "graphs": values.graphs, "run": RUN, "packed": _PACKED, "scored": _SCORED}
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_programs(folder, values.graphs)
    results["costs"] = costs(folder)
    for part in PARTS:
      for processes in map(int, values.processes):
        for _ in range(values.repeats):
          start = cases.run("experiments.scaling", f"{part}-start", processes, folder)
          done = cases.run("experiments.scaling", part, processes, folder)
          rows.append({"part": part, "processes": processes, **done,
                       "start_wall_s": start["wall_s"], "start_cpu_s": start["cpu_s"]})
          print(f"{part}, {processes} processes: {done['wall_s']:.1f} s, "
                f"{done['cpu_s']:.1f} CPU seconds", flush=True)
          hashes = {row["hash"] for row in rows if row["part"] == part}
          results.update(cases=rows, summary=summary(rows), results_are_equal=len(hashes) == 1)
          files.write_json(values.results, results)
  print(json.dumps(results["summary"], indent=2))


if __name__ == "__main__":
  app.run(main, define_flags)
