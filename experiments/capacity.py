"""Plans large jobs: hours of packing, prediction and training on many workers.

  python -m experiments.capacity
  python -m experiments.capacity --times 1,10,100 --workers 1,16,256

Reads the costs in results/benchmark.json and results/recipes.json, and the CPU efficiencies in
results/scaling.json; prints a table, and writes results/capacity.json. The model, in CPU seconds of
one core:

  packing     configurations x configurable nodes x CPU seconds of one configurable node's layout,
              the mean of the largest public shapes (a tile counts as one and a third of a node)
  prediction  layouts: configurations x nodes / (nodes x configurations per CPU second), measured
              with `Run.score` on a large program. Tiles: every node of a kernel depends on the
              tile, so the nodes that exact execution updates per CPU second count.
  training    the hours of the recipe's steps; N times the programs need N times the steps

  hours(w) = start + CPU hours / (w x efficiency)

No more workers help than there are programs, or, in training, lists in a step of the recipe.

`check` applies the same model to the cases of results/scaling.json, with costs that were measured
on the same machine and programs of another size.
"""

import json
import pathlib
from typing import Any, NamedTuple

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import registry

JOBS = ("packing", "prediction", "training")
# The part of results/scaling.json that measures a job; training is assumed to be like packing.
_PARTS = {"packing": "packing", "prediction": "predicting"}
# A tile has 24 values in place of the 18 of a configurable node.
_NODES_PER_TILE = 24 / 18
_PACKED_BYTES_PER_TILE = 24 * 4


class Data(NamedTuple):
  """A collection.

  Attributes:
    name: its name.
    programs: number of graphs.
    samples: number of configurations of all graphs.
    nodes: mean number of nodes.
  """

  name: str
  programs: int
  samples: int
  nodes: float

  @property
  def is_tile(self) -> bool:
    return self.name.startswith("tile:")


# Configurations of the public collections (arXiv 2308.13490).
_SAMPLES = {"tile:xla": 12_870_077, "layout:xla:default": 771_496, "layout:xla:random": 908_561,
            "layout:nlp:default": 13_285_415, "layout:nlp:random": 16_125_781}


class Costs(NamedTuple):
  """Measured costs of one core.

  Attributes:
    pack_s: CPU seconds of a configurable node's layout in packing.
    pack_bytes: its bytes in a packed file.
    searched, random: nodes x configurations per CPU second in prediction, by the kind of
      configurations.
    updated: nodes that exact execution updates per CPU second.
    training_h: CPU hours of the steps of each collection's recipe.
  """

  pack_s: float
  pack_bytes: float
  searched: float
  random: float
  updated: float
  training_h: dict[str, float]


def costs_of(benchmark: dict[str, Any]) -> Costs:
  """The costs in results/benchmark.json, with the `recipes` of results/recipes.json."""
  shapes = benchmark["packing"]["shapes"]
  mean = lambda values: sum(values) / len(values)
  rate = {row["configurations"]: row["nodes"] * row["per_cpu_s"] for row in benchmark["memory"]}
  # The nodes that a configuration reaches within two convolutions, of 10,000.
  reached = benchmark["speedups"]["13_31_width32"]["shares"][-1] * 10_000
  exact = max((row for row in benchmark["streaming"] if row["configurations"] == "random"),
              key=lambda row: row["count"])
  return Costs(
      mean([shape["cpu_s"] / (shape["configs"] * shape["configurable"]) for shape in shapes]),
      mean([shape["configs_bytes"] for shape in shapes]), rate["searched"], rate["random"],
      reached * exact["exact_per_cpu_s"],
      {row["recipe"]: row["steps"] * row["cpu_s"] / 3600 for row in benchmark["recipes"]})


def public_data(benchmark: dict[str, Any]) -> list[Data]:
  """The public collections, with the mean sizes that the benchmark uses."""
  nodes = {row["recipe"]: row["nodes"] for row in benchmark["recipes"]}
  return [Data(name, sum(count or 0 for count in registry.get_collection(name).splits.values()),
               samples, nodes[name]) for name, samples in _SAMPLES.items()]


def lists_of_a_step(data: Data) -> int:
  """The number of lists in a training step of a collection's recipe."""
  recipe = recipes.read(data.name.replace(":", "_"))
  return recipe.get("batch", {}).get("batch_size", run_config.BatchConfig().batch_size)


def cpu_hours(data: Data, costs: Costs, job: str, configurable: float) -> float:
  """CPU hours of a job on a collection.

  Args:
    data: the collection.
    costs: the costs.
    job: one of JOBS.
    configurable: share of the nodes that are configurable.
  """
  if job == "training":
    return costs.training_h[data.name]
  if job == "packing":
    per_sample = _NODES_PER_TILE if data.is_tile else configurable * data.nodes
    return data.samples * per_sample * costs.pack_s / 3600
  rate = costs.updated if data.is_tile else (
      costs.random if data.name.endswith(":random") else costs.searched)
  return data.samples * data.nodes / rate / 3600


def packed_gb(data: Data, costs: Costs, configurable: float) -> float:
  """Size of the packed configurations, in gigabytes."""
  per_sample = (_PACKED_BYTES_PER_TILE if data.is_tile
                else configurable * data.nodes * costs.pack_bytes)
  return data.samples * per_sample / 1e9


def hours(cpu: float, workers: int, most: int, efficiency: float, start_s: float) -> float:
  """Hours of a job.

  Args:
    cpu: its CPU hours.
    workers: number of workers, of one core each.
    most: number of workers that it can use.
    efficiency: of several workers; one worker has efficiency 1.
    start_s: seconds until a worker starts.
  """
  used = min(workers, most)
  return start_s / 3600 + cpu / (used * (efficiency if used > 1 else 1.0))


def plan(benchmark: dict[str, Any], scaling: dict[str, Any], times: int, workers: list[int],
         configurable: float) -> list[dict[str, Any]]:
  """One row for each job, over all collections.

  Args:
    benchmark: results/benchmark.json.
    scaling: results/scaling.json.
    times: size of the data, as a multiple of the public collections.
    workers: numbers of workers.
    configurable: share of the nodes that are configurable.
  """
  costs, data = costs_of(benchmark), public_data(benchmark)
  rows = []
  for job in JOBS:
    measured = _several_workers(scaling, _PARTS.get(job, "packing"))
    cpu = [times * cpu_hours(one, costs, job, configurable) for one in data]
    most = [lists_of_a_step(one) if job == "training" else times * one.programs for one in data]
    efficiency = _efficiency(measured)
    rows.append({
        "job": job, "times": times, "cpu_hours": sum(cpu),
        "packed_gb": (times * sum(packed_gb(one, costs, configurable) for one in data)
                      if job == "packing" else None),
        "hours": {str(count): sum(
            hours(own, count, limit, efficiency, measured["start_wall_s"])
            for own, limit in zip(cpu, most)) for count in workers}})
  return rows


def _several_workers(scaling: dict[str, Any], part: str) -> dict[str, Any]:
  """The case with most worker processes of those that have a core each."""
  return max((row for row in scaling["summary"]
              if row["part"] == part and 0 < row["processes"] <= scaling["cores"]),
             key=lambda row: row["processes"])


def _efficiency(measured: dict[str, Any]) -> float:
  # Of CPU seconds, because other programs on the machine influence them less.
  return min(measured["cpu_efficiency"] or 1.0, 1.0)


def check(scaling: dict[str, Any]) -> list[dict[str, Any]]:
  """The planned and the measured seconds of each case in results/scaling.json.

  Args:
    scaling: results/scaling.json. Its costs are from programs of other sizes, on the same machine.
  """
  units = {"packing": scaling["packed"][0] * scaling["packed"][1],
           "predicting": scaling["scored"][0] * scaling["scored"][1]}
  rows = []
  for row in scaling["summary"]:
    part, processes = row["part"], row["processes"]
    cpu_s = scaling["graphs"] * units[part] * scaling["costs"][part]
    seconds = 3600 * hours(
        cpu_s / 3600, max(processes, 1), min(scaling["graphs"], scaling["cores"]),
        _efficiency(_several_workers(scaling, part)), row["start_wall_s"])
    rows.append({"part": part, "processes": processes, "planned_s": seconds,
                 "measured_s": row["wall_s"], "ratio": row["wall_s"] / seconds})
  return rows


def check_table(results: dict[str, Any]) -> str:
  """The published table of `check`."""
  return tables.markdown(
      ["", "worker processes", "planned", "measured", "measured / planned"],
      [[row["part"], str(row["processes"] or "without Beam"), f"{row['planned_s']:.1f} s",
        f"{row['measured_s']:.1f} s", f"{row['ratio']:.2f}"] for row in results["check"]])


def table(results: dict[str, Any]) -> str:
  """The published table."""
  counts = list(results["plan"][0]["hours"])
  shown = lambda value: f"{value:,.1f} h" if value >= 0.1 else f"{60 * value:.1f} min"
  return tables.markdown(
      ["job", "size", "CPU hours", "packed",
       *(f"{count} worker{'s' * (count != '1')}" for count in counts)],
      [[row["job"], f"{row['times']} x TpuGraphs", f"{row['cpu_hours']:,.1f}",
        "" if row["packed_gb"] is None else f"{row['packed_gb']:,.0f} GB",
        *(shown(row["hours"][count]) for count in counts)] for row in results["plan"]])


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_list("times", ["1", "100"], "Sizes, as multiples of the public collections.")
  flags.DEFINE_list("workers", ["1", "16", "64", "256"], "Numbers of workers of one core.")
  flags.DEFINE_float("configurable", 0.1, "Share of a program's nodes that are configurable. The "
                     "largest public programs have 0.06 and 0.15.", 0.0, 1.0)
  flags.DEFINE_string("results", "results", "Folder of benchmark.json, recipes.json and "
                      "scaling.json, and of capacity.json, which is written.")


def main(argv: list[str]) -> None:
  """Computes the plan."""
  values = flags.FLAGS
  from tpugraphs_rank.training import run_directory
  folder = pathlib.Path(values.results)
  benchmark = {**files.read_json(folder / "benchmark.json"),
               "recipes": files.read_json(folder / "recipes.json")["recipes"]}
  scaling = files.read_json(folder / "scaling.json")
  workers = [int(count) for count in values.workers]
  results = {
      **run_directory.environment(), "repeats": benchmark["repeats"],
      "configurable": values.configurable, "costs": costs_of(benchmark)._asdict(),
      "check": check(scaling),
      "plan": [row for times in map(int, values.times)
               for row in plan(benchmark, scaling, times, workers, values.configurable)]}
  files.write_json(folder / "capacity.json", results)
  print(json.dumps(results["costs"], indent=2))
  print(table(results))
  print(check_table(results))


if __name__ == "__main__":
  app.run(main, define_flags)
