"""Generate programs like those of a collection; measure them.

  tpugraphs-rank synthesize --output build/like_mine --count 100
  tpugraphs-rank synthesize --output build/like_mine --collection layout:xla_cpu:mixed:v1 --count 60
  tpugraphs-rank synthesize --output build/like_mine --collection mine.json --generate_only

A LayerDAG learns the dataflow graphs of the collection's training programs; runtimes are not
needed. It learns whole kernels, and sampled sub-graphs of layout programs, which are large. Graphs
are sampled from it, and each becomes a runnable program with new shapes. The collector then
compiles the programs and times them on this CPU, under many tile sizes or many requested layouts,
in its own environment, which is created on first use. OUTPUT/collection/collection.json is an
ordinary collection.

OUTPUT/programs.json holds the programs, with a report of the graphs that were rejected and
repaired; --generate_only stops there. With --source=random or template, graphs are generated
without a trained model, with the kinds and sizes of the programs in --like.

After an interruption, the same command resumes. Another --seed with a --first_number beyond the
existing programs adds programs to the collection.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank.cli import collect
from tpugraphs_rank.collect.common import flags as collector_flags
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.programs import sources

_RECIPES = {"tile": "layerdag_dataflow", "layout": "layerdag_dataflow_layout"}
_SUBGRAPHS = {"tile": 0, "layout": 4}
_CONFIGURATIONS = {"tile": 20, "layout": 30}
_PROGRAMS = "programs.json"
# The command has other flags of these meanings, or none.
_LEFT_OUT = ("synthetic", "families", "limit", "seed", "configurations",
             "configurations_of_small_programs", "assemble_only", *collector_flags.SHARING)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", None, "Folder of the generator, the programs and the collection.",
                      required=True)
  flags.DEFINE_string(
      "collection", "tile:xla_cpu:v1", "Name of a collection, or path of its JSON descriptor.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections.")
  flags.DEFINE_bool("partial", False, "If graphs of the collection are missing, use those that "
                    "exist.")
  flags.DEFINE_integer("count", 100, "Number of programs.", lower_bound=1)
  flags.DEFINE_bool("generate_only", False, "Write the programs without measuring them.")
  flags.DEFINE_enum(
      "source", "layerdag", ["layerdag", *sources.CONTROLS], "How the graphs are generated.")
  flags.DEFINE_string(
      "like", None, "A programs.json file; --source=random and template reproduce the kinds and "
      "numbers of nodes of its programs.")
  flags.DEFINE_string(
      "model", None, "A trained generator of dataflow graphs: its run directory or file. By "
      "default one is trained in OUTPUT/layerdag, unless it is there already.")
  flags.DEFINE_string(
      "config", None, "Recipe (by name) or JSON file with the settings of the generator. Default: "
      "the recipe for the collection's kind, " + " or ".join(_RECIPES.values()) + ".")
  flags.DEFINE_integer("seed", 0, "Seed of all random choices.", lower_bound=0)
  flags.DEFINE_integer(
      "first_number", 0, "Number of the first graph, which is part of the programs' names.",
      lower_bound=0)
  flags.DEFINE_integer(
      "max_nodes", None, "Maximum number of nodes of a dataflow graph; larger ones are left out. "
      "Default: 120 for whole programs, 50 for sub-graphs.", lower_bound=2)
  flags.DEFINE_integer(
      "subgraphs", None, "Number of sub-graphs of each program to learn; 0: learn whole programs. "
      "Default: 0 for kernels, 4 for layout programs.", lower_bound=0)
  flags.DEFINE_integer("min_nodes", 15, "Minimum number of nodes of a sub-graph.", lower_bound=2)
  flags.DEFINE_float(
      "guidance", 1.0, "Strength of the conditions; above 1 exaggerates them.", lower_bound=0.0)
  flags.DEFINE_float(
      "temperature", 1.0, "Below 1, graphs are more likely and less diverse.", lower_bound=0.01)
  flags.DEFINE_string("name", None, "Name of the collection. Default: tile:synthetic or "
                      "layout:synthetic.")
  flags.DEFINE_integer("configurations", None, "Maximum number of configurations of each program. "
                       "Default: 20 tile sizes, or 30 combinations of layouts.", lower_bound=2)
  collect.define_collector_flags(("tile", "layout"), _LEFT_OUT)


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  kind = generate(output, values)
  if values.generate_only:
    return
  configurations = values.configurations or _CONFIGURATIONS[kind]
  arguments = [f"--synthetic={(output / _PROGRAMS).absolute()}",
               f"--configurations={configurations}"]
  if kind == "layout":
    arguments.append(f"--configurations_of_small_programs={configurations}")
  measurement = collect.collect(
      kind, output, arguments + collect.collector_arguments(kind, values, _LEFT_OUT),
      values.name or f"{kind}:synthetic", synthetic=True, passes=values.passes or 2)
  print(collect.summary(measurement, "programs"))
  print(f"collection: {output / 'collection' / 'collection.json'}")


def generate(output: pathlib.Path, values: flags.FlagValues) -> str:
  """Writes the programs and prints the report about them.

  Returns:
    The kind of the programs, "tile" or "layout".
  """
  about: dict[str, Any] = {"made_by": "tpugraphs-rank synthesize", "source": values.source,
                           "seed": values.seed, "first_number": values.first_number}
  if values.source == "layerdag":
    kind = registry.get_collection(values.collection).kind
    realized = sources.realize_graphs(
        _sampled_graphs(output, kind, about, values), values.count, "layerdag", values.seed,
        sources.LIMITS[kind], values.first_number)
  else:
    if not values.like:
      raise errors.ConfigError(
          f"--source={values.source} needs --like FILE: a programs.json file whose kinds and sizes "
          "are reproduced")
    like = files.read_json(values.like)
    # Older files hold kernels.
    kind = like.get("kind", "tile") if isinstance(like, dict) else "tile"
    if kind not in tuple(sources.LIMITS):
      raise errors.DataError(f"{values.like}: kind is {escaping.value(kind)}; expected one of "
                             f"{', '.join(sources.LIMITS)}")
    programs = sources.from_json(like, values.like)
    matched = sources.targets(programs, sources.LIMITS[kind])
    realized = sources.realize_controls(values.source, matched[:values.count], values.seed,
                                        sources.LIMITS[kind], values.first_number)
  about["kind"] = kind
  path = output / _PROGRAMS
  files.write_json(path, sources.as_json(realized, about))
  report = realized.report()
  print(f"{report['programs']} programs of {report['graphs']} graphs: {report['realised']:.1%} "
        f"realized, {report['repaired_share']:.1%} of the nodes repaired on average")
  for title in ("repairs", "refused", "kinds"):
    counts = ", ".join(f"{count} {name}" for name, count in report[title].items() if count)
    print(f"{title}: {counts or 'none'}")
  print(f"written: {path}", flush=True)
  return kind


def _sampled_graphs(output: pathlib.Path, kind: str, about: dict[str, Any],
                    values: flags.FlagValues) -> Iterator[sources.Graph]:
  """An endless sequence of graphs from a generator."""
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.synthesis.programs import dataflow
  path = pathlib.Path(values.model or output / "layerdag")
  if not values.model:
    _train(output, kind, values)
  model = model_lib.LayerDAG.load(path / "model.npz" if path.is_dir() else path)
  about.update(model=model.hash(), collection=values.collection, guidance=values.guidance,
               temperature=values.temperature)
  options = sampler.Options(guidance=values.guidance, temperature=values.temperature)

  def graphs() -> Iterator[sources.Graph]:
    turn = 0
    while True:
      # Somewhat more graphs than programs, because some graphs are rejected.
      yield from dataflow.from_dags(model.sample(
          max(32, int(1.2 * values.count)), seed=int(np.random.default_rng(
              [values.seed, turn]).integers(2 ** 31 - 1)), options=options))
      turn += 1

  return graphs()


def _train(output: pathlib.Path, kind: str, values: flags.FlagValues) -> None:
  """Trains the generator, or resumes its training."""
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import settings
  from tpugraphs_rank.synthesis.layerdag import training
  from tpugraphs_rank.synthesis.programs import dataflow
  from tpugraphs_rank.synthesis.programs import subgraphs
  graphs = output / "dataflow.npz"
  count = _SUBGRAPHS[kind] if values.subgraphs is None else values.subgraphs
  sampling = subgraphs.Sampling(count, values.min_nodes, values.max_nodes or 50,
                                sources.LIMITS[kind].sites, values.seed) if count else None
  extracted = dataflow.extract(values.collection, ("train",), values.max_nodes or 120,
                               values.data_root, sampling, values.partial)
  dags.save(graphs, extracted)
  print(f"{len(extracted)} dataflow graphs of {values.collection} "
        f"({extracted.provenance['left_out']} programs left out); training a generator",
        flush=True)
  source = values.config or _RECIPES[kind]
  base = config_lib.from_dict(settings.LayerDagConfig, recipes.read(source), source=source)
  config = config_lib.override(
      base, {"data.graphs": str(graphs), "fit.seed": values.seed}, source="flags")
  training.Trainer(config).train(output / "layerdag")
