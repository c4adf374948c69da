"""Compare synthetic traces with real ones.

  tpugraphs-rank chakra compare --run build/synthetic
  tpugraphs-rank chakra compare --training training.npz --held_out held_out.npz \\
    --synthetic traces/ --output build/comparison

--run is the output folder of `tpugraphs-rank chakra synthesize`. Otherwise each of the three is a
file of graphs (.npz), a trace, or a folder of traces; the held-out graphs must not have been used
for training.

Compared are the distributions of types, depth, width, dependencies and users of a node, durations,
critical paths and total work. The distances of synthetic to held-out graphs are shown next to those
between two real halves and to those of random controls. Two tests show what the synthetic graphs
reveal: their distance to the nearest training graph, and whether that distance tells training from
held-out graphs.

Graphs that `chakra synthesize --stitch` joined are larger than the real ones, which are not joined;
the command warns of this.

Writes report.md, results.json, distributions.png, nearest.png and graphs.png.
"""

import logging
import pathlib
import shlex

from absl import flags
import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.traces import outputs

_log = logging.getLogger("tpugraphs_rank.chakra")

_PARTS = ("training", "held_out", "synthetic")
_DRAWN = 2


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Output folder of `chakra synthesize`.")
  for part in _PARTS:
    flags.DEFINE_string(part, None, f"The {part.replace('_', '-')} graphs, instead of --run: a "
                        "file of graphs, a trace, or a folder of traces.")
  flags.DEFINE_string("output", None, "Folder of the report. Default: RUN/comparison.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")
  flags.DEFINE_integer("seed", 0, "Seed of the random controls.", lower_bound=0)


def load(path: pathlib.Path) -> dags.Dags:
  """The graphs in a file, or of traces, with the dependencies that no others imply."""
  if path.suffix == ".npz":
    return dags.load(path)
  settings = graphs_lib.Settings(reduced=True)
  return graphs_lib.to_dags(
      [graphs_lib.read(file, settings) for file in graphs_lib.trace_files([path])], settings)


def _parts(run: str) -> dict[str, dags.Dags]:
  """The graphs in the output folder of `chakra synthesize`."""
  missing = [name for part in _PARTS if not (pathlib.Path(run) / (name := f"{part}.npz")).exists()]
  if missing:
    command = commands.command(
        "chakra", "synthesize", "--input", "traces/", "--output", shlex.quote(run))
    raise errors.MissingDataError(
        f"{run} has no {missing[0]}; expected the output folder of a finished `chakra synthesize`; "
        f"correct --run, or finish it: {command}")
  return {part: load(pathlib.Path(run) / f"{part}.npz") for part in _PARTS}


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  named = {part: getattr(values, part) for part in _PARTS}
  if bool(values.run) == any(named.values()) or not (values.run or all(named.values())):
    stated = ", ".join(f"--{name}" for name in ("run", *_PARTS) if getattr(values, name))
    raise errors.ConfigError(
        f"the parts to compare are {stated or 'not set'}; expected either --run alone, or all of "
        "--training, --held_out and --synthetic; add or remove flags")
  if not values.run and not values.output:
    raise errors.ConfigError(
        "--output is not set; expected a folder for the report, such as --output comparison/")
  parts = _parts(values.run) if values.run else {
      part: load(pathlib.Path(path)) for part, path in named.items()}
  for part, graphs in parts.items():
    if graphs.x_names != parts["training"].x_names:
      raise errors.DataError(
          f"the {part.replace('_', '-')} graphs have the attributes {', '.join(graphs.x_names)}, "
          f"but the training graphs {', '.join(parts['training'].x_names)}; expected the same; "
          "import all traces with the same --attributes")
  output = pathlib.Path(values.output or f"{values.run}/comparison")

  # Matplotlib and scikit-learn: only once the arguments are known to be right.
  from tpugraphs_rank.synthesis.traces import comparison
  from tpugraphs_rank.synthesis.traces import drawings
  from tpugraphs_rank.synthesis.traces import generation
  from tpugraphs_rank.synthesis.traces import report
  together = report.joined(parts["synthetic"])
  if together > 1:
    _log.warning("%s", report.warning_of_joined(together))
  result = report.evaluate(
      parts["training"], parts["held_out"], parts["synthetic"], values.seed)
  text = report.markdown(result)
  path_of = {name: output / name for name in outputs.COMPARISON}
  files.write_json(path_of["results.json"], result)
  files.write_text(path_of["report.md"], text)
  buckets = report.bucket_values(parts["held_out"])
  parts = dict(zip(parts, dags.in_common_vocabularies(list(map(report.bare, parts.values())))))
  shown = {
      "real, held-out": parts["held_out"], "real, training": parts["training"],
      "synthetic": parts["synthetic"],
      "random": comparison.random_graphs(parts["synthetic"], parts["training"], values.seed)}
  drawings.distributions(path_of["distributions.png"], shown, None if buckets is None else {
      name: generation.durations(graphs, buckets) for name, graphs in shown.items()})
  counts = comparison.neighborhoods(parts)
  drawings.nearest(path_of["nearest.png"], {
      "held-out": comparison.nearest(counts["held_out"], counts["training"]),
      "synthetic": comparison.nearest(counts["synthetic"], counts["training"])})
  # Those of median size, so that none is chosen by hand.
  drawings.side_by_side(path_of["graphs.png"], {
      name: graphs.take(np.argsort(graphs.sizes, kind="stable")[len(graphs) // 2:][:_DRAWN])
      for name, graphs in shown.items()})
  written = list(map(str, path_of.values()))
  if values.results:
    files.write_json(values.results, result)
    written.append(values.results)
  print(text)
  print("written:", ", ".join(written))
