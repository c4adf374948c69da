"""Programs like those of a collection, to be measured on this machine: a benchmark without secrets.

  ./run synthesize build/like_mine --count 100
  ./run synthesize build/like_mine --collection layout:xla_cpu:mixed --count 60
  python -m tpugraphs_rank.cli.synthesize --collection mine.json --output build/like_mine

The first does everything: it makes programs, compiles and times them under many tile sizes, and
leaves an ordinary collection; so does the second, with programs like those of a layout collection,
under many requested layouts. The third only makes the programs: a LayerDAG learns the dataflow
graphs of the collection's training programs (no runtimes are needed), or, where these are large,
of parts of them; graphs are drawn from it, and each becomes a runnable program with shapes of its
own. Writes OUTPUT/programs.json, with an
account of what was refused and repaired. With --source=random or template graphs are made that
nothing was learned for, of the kinds and sizes of the programs in --like.
"""

from collections.abc import Iterator
import json
import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank.data import registry
from tpugraphs_rank.synthesis.programs import sources

_RECIPES = {"tile": "layerdag_dataflow", "layout": "layerdag_dataflow_layout"}
_PARTS_OF = {"tile": 0, "layout": 4}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
      "collection", "tile:xla_cpu", "Name of a collection, or path of its JSON descriptor.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections.")
  flags.DEFINE_string("output", None, "Folder of the generator and the programs.",
                      required=True)
  flags.DEFINE_integer("count", 100, "How many programs.", lower_bound=1)
  flags.DEFINE_enum(
      "source", "layerdag", ["layerdag", *sources.CONTROLS], "Where graphs come from.")
  flags.DEFINE_string(
      "like", None, "A programs.json whose kinds and numbers of nodes --source=random and template "
      "keep to.")
  flags.DEFINE_string(
      "model", None, "A trained generator of dataflow graphs (the run directory or the file); "
      "otherwise one is trained in OUTPUT/layerdag, or taken from there.")
  flags.DEFINE_string(
      "config", None, "JSON file with the settings of the generator that is trained; otherwise the "
      "recipe for the collection's kind.")
  flags.DEFINE_integer("seed", 0, "Seed of everything random.", lower_bound=0)
  flags.DEFINE_integer(
      "first_number", 0, "Number of the first graph, in the programs' names. With another seed and "
      "numbers beyond those that are there, more programs join those that were measured.",
      lower_bound=0)
  flags.DEFINE_integer(
      "max_nodes", None, "Larger dataflow graphs are left out (otherwise those of more than 120 "
      "nodes); of parts, the most nodes of one (otherwise 50).", lower_bound=2)
  flags.DEFINE_integer(
      "parts", None, "Learn so many parts of each program, and not programs as a whole; 0: as a "
      "whole. Otherwise 4 of layout programs, and kernels as a whole.", lower_bound=0)
  flags.DEFINE_integer("fewest_nodes", 15, "Nodes of a part, at least.",
                       lower_bound=2)
  flags.DEFINE_float(
      "guidance", 1.0, "Above 1: what the conditions change is exaggerated.", lower_bound=0.0)
  flags.DEFINE_float(
      "temperature", 1.0, "Below 1: likelier graphs, less various.", lower_bound=0.01)


def main(argv: list[str]) -> None:
  """Runs the command."""
  output = pathlib.Path(flags.FLAGS.output)
  about: dict[str, Any] = {"made_by": "tpugraphs_rank.cli.synthesize",
                           "source": flags.FLAGS.source, "seed": flags.FLAGS.seed,
                           "first_number": flags.FLAGS.first_number}
  if flags.FLAGS.source == "layerdag":
    kind = registry.get_collection(flags.FLAGS.collection).kind
    made = sources.realize_graphs(_drawn(output, kind, about), flags.FLAGS.count, "layerdag", flags.FLAGS.seed,
                             sources.LIMITS[kind], flags.FLAGS.first_number)
  else:
    if not flags.FLAGS.like:
      raise errors.ConfigError(
          f"--source={flags.FLAGS.source} needs --like FILE: the programs.json whose kinds and sizes "
          "are kept to")
    like = files.read_json(flags.FLAGS.like)
    given = sources.from_json(like, flags.FLAGS.like)
    kind = like.get("kind", "tile")  # Older files hold kernels.
    if kind not in sources.LIMITS:
      raise errors.DataError(f"{flags.FLAGS.like}: kind is {kind!r}; expected one of "
                             f"{', '.join(sources.LIMITS)}")
    matched = sources.targets(given, sources.LIMITS[kind])
    made = sources.realize_controls(flags.FLAGS.source, matched[:flags.FLAGS.count], flags.FLAGS.seed,
                              sources.LIMITS[kind], flags.FLAGS.first_number)
  about["kind"] = kind
  path = output / "programs.json"
  files.write_json(path, sources.as_json(made, about))
  report = made.report()
  print(f"{report['programs']} programs of {report['graphs']} graphs: {report['realised']:.1%} "
        f"realised, {report['repaired_share']:.1%} of the nodes repaired on average "
        f"({json.dumps(report['repairs'])}), refused: {json.dumps(report['refused'])}")
  print(f"kinds: {json.dumps(report['kinds'])}")
  print(f"written: {path}")


def _drawn(output: pathlib.Path, kind: str, about: dict[str, Any]) -> Iterator[sources.Graph]:
  """Endlessly many graphs of a generator."""
  from tpugraphs_rank.synthesis.layerdag import model as model_lib
  from tpugraphs_rank.synthesis.layerdag import sampler
  from tpugraphs_rank.synthesis.programs import dataflow
  path = pathlib.Path(flags.FLAGS.model or output / "layerdag")
  if not flags.FLAGS.model:
    _train(output, kind)
  model = model_lib.LayerDAG.load(path / "model.npz" if path.is_dir() else path)
  about.update(model=model.hash(), collection=flags.FLAGS.collection, guidance=flags.FLAGS.guidance,
               temperature=flags.FLAGS.temperature)
  options = sampler.Options(guidance=flags.FLAGS.guidance, temperature=flags.FLAGS.temperature)

  def drawn() -> Iterator[sources.Graph]:
    turn = 0
    while True:
      # A little more than asked for, as some are refused.
      graphs = dataflow.from_dags(model.sample(
          max(32, int(1.2 * flags.FLAGS.count)), seed=int(np.random.default_rng(
              [flags.FLAGS.seed, turn]).integers(2 ** 31 - 1)), options=options))
      yield from graphs
      turn += 1

  return drawn()


def _train(output: pathlib.Path, kind: str) -> None:
  """Trains the generator, or goes on with it."""
  from tpugraphs_rank import config as config_lib
  from tpugraphs_rank.synthesis.dags import dags
  from tpugraphs_rank.synthesis.layerdag import settings
  from tpugraphs_rank.synthesis.layerdag import training
  from tpugraphs_rank.synthesis.programs import dataflow
  from tpugraphs_rank.synthesis.programs import subgraphs as parts_lib
  graphs = output / "dataflow.npz"
  count = (_PARTS_OF[kind] if flags.FLAGS.parts is None else flags.FLAGS.parts)
  cut = parts_lib.Sampling(count, flags.FLAGS.fewest_nodes, flags.FLAGS.max_nodes or 50,
                      sources.LIMITS[kind].sites, flags.FLAGS.seed) if count else None
  extracted = dataflow.extract(flags.FLAGS.collection, ("train",), flags.FLAGS.max_nodes or 120,
                               flags.FLAGS.data_root, cut)
  dags.save(graphs, extracted)
  print(f"{len(extracted)} dataflow graphs of {flags.FLAGS.collection} "
        f"({extracted.provenance['left_out']} programs left out); training a generator",
        flush=True)
  path = flags.FLAGS.config or _RECIPES[kind]
  base = config_lib.from_dict(
      settings.LayerDagConfig, recipes.read(path), source=path)
  config = config_lib.override(
      base, {"data.graphs": str(graphs), "fit.seed": flags.FLAGS.seed}, source="flags")
  training.Trainer(config).train(output / "layerdag")
