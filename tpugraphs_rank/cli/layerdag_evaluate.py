"""Compare generated graphs with real ones.

  tpugraphs-rank layerdag evaluate --real kernels.npz --synthetic samples.npz \\
    --output runs/layerdag/evaluation
  tpugraphs-rank layerdag evaluate --train kernels_train.npz --valid kernels_valid.npz \\
    --test kernels_test.npz --synthetic samples0.npz,samples1.npz

A single file of real graphs is divided like `tpugraphs-rank layerdag graphs --divide` divides it:
60 / 20 / 20 %, with equal graphs in the same part. Give the --split_seed of the generator's
training graphs, because the generator must not have seen the other two parts. Without --synthetic,
the report compares real graphs with each other.

Predictors of the label are trained on real graphs, on generated ones, and on generated ones with
shuffled labels, and are tested on real graphs. There are two kinds: surrogates, which average
networks like the critic's with a random forest, and random forests alone, which are unrelated to
the critic of `layerdag sample` (`forest_...` in results.json). Forests see counts of opcodes and of
pairs of opcodes.

Writes report.md, results.json, distributions.png and graphs.png. The drawn graphs are not chosen by
hand: they are evenly spaced in the order by number of nodes.
"""

import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.training import run_directory


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("real", None, "File of real graphs, which the command divides.")
  flags.DEFINE_integer("split_seed", 0, "Seed of the division of --real.")
  for split in ("train", "valid", "test"):
    flags.DEFINE_string(split, None, f"File of the real {split} graphs, instead of --real.")
  flags.DEFINE_list("synthetic", [], "Files of synthetic graphs. The figures of several files are "
                    "averaged.")
  flags.DEFINE_string("label", None, "Label to predict. By default the first.")
  flags.DEFINE_integer("seeds", 3, "Surrogates and forests of each kind, with seeds "
                       "0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("max_epochs", 150, "Maximum epochs of a surrogate.", lower_bound=1)
  flags.DEFINE_integer("threads", 1, "Threads of TensorFlow.", lower_bound=1)
  flags.DEFINE_integer("drawn", 6, "Graphs to draw from each set.", lower_bound=1)
  flags.DEFINE_string("output", "runs/layerdag/evaluation", "Folder of the report.")
  flags.DEFINE_string("results", None, "Also write the figures to this file.")


def real_graphs(values: flags.FlagValues) -> dict[str, dags.Dags]:
  """The real graphs by split."""
  named: dict[str, str] = {split: getattr(values, split) for split in ("train", "valid", "test")}
  if bool(values.real) == any(named.values()) or (not values.real and not all(named.values())):
    raise errors.ConfigError("expected either --real, or --train, --valid and --test: the files of "
                             "the real graphs")
  if not values.real:
    return {split: dags.load(path) for split, path in named.items()}
  graphs = dags.load(values.real)
  return {split: graphs.take(rows)
          for split, rows in dags.split_by_wl(graphs, dags.SHARES, values.split_seed).items()}


def by_size(graphs: dags.Dags, count: int) -> dags.Dags:
  """Graphs that are evenly spaced in the order by size."""
  order = np.argsort(graphs.sizes, kind="stable")
  steps = (np.arange(count) + 0.5) / count * len(order)
  return graphs.take(order[np.unique(steps.astype(int))])


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  real = real_graphs(values)
  samples = [dags.load(path) for path in values.synthetic]
  seeds = list(range(values.seeds))

  # TensorFlow and Matplotlib: only once the arguments are known to be right.
  from tpugraphs_rank.synthesis.judging import drawings
  from tpugraphs_rank.synthesis.judging import report
  from tpugraphs_rank.synthesis.judging import surrogate
  from tpugraphs_rank.training import runtime
  runtime.configure(0, values.threads)
  figures = report.evaluate(real, samples, seeds, values.label,
                          surrogate.Options(max_epochs=values.max_epochs))
  source = ({"file": pathlib.Path(values.real).name, "split_seed": values.split_seed,
             "shares": dags.SHARES} if values.real else
            {split: pathlib.Path(getattr(values, split)).name for split in real})
  results: dict[str, Any] = {
      **run_directory.environment(), "seeds": seeds, "real_graphs": source,
      "synthetic_graphs": [pathlib.Path(path).name for path in values.synthetic], **figures}
  output = pathlib.Path(values.output)
  text = report.markdown(figures)
  files.write_json(output / "results.json", results)
  files.write_text(output / "report.md", text)
  shown = {"real, test": real["test"]}
  for path, graphs in zip(values.synthetic, samples):
    stem = pathlib.Path(path).stem
    shown["synthetic" if len(samples) == 1 else f"synthetic, {stem}"] = graphs
  drawings.distributions(output / "distributions.png", {"real, training": real["train"], **shown})
  drawings.side_by_side(output / "graphs.png", {
      name: by_size(graphs, values.drawn) for name, graphs in shown.items()})
  written: list[str] = [f"{output}/{name}" for name in (
      "report.md", "results.json", "distributions.png", "graphs.png")]
  if values.results:
    files.write_json(values.results, results)
    written.append(values.results)
  print(text)
  print("written:", ", ".join(written))
