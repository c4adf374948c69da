"""Judges made graphs beside the real ones: one report with a table, JSON, plots and drawings.

  python -m tpugraphs_rank.cli.layerdag_evaluate --real kernels.npz --synthetic made.npz \\
    --output runs/layerdag/evaluation
  python -m tpugraphs_rank.cli.layerdag_evaluate --train kernels_train.npz --valid kernels_valid.npz \\
    --test kernels_test.npz --synthetic made0.npz,made1.npz --results results/made.json

One file of real graphs is divided as `tpugraphs_rank.cli.layerdag_graphs --divide` divides it, 60 / 20 /
20 %, no two equal graphs on two sides; give the --split_seed of the generator's training graphs.
The generator must not have seen the other two parts. Without --synthetic, the report says how real
graphs do among themselves.

Writes report.md, results.json, distributions.png and graphs.png: graphs at even steps of the number
of nodes, of each side, none of them chosen.
"""

import pathlib
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.judging import drawings
from tpugraphs_rank.training import run_directory


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("real", None, "File of real graphs, to be divided.")
  flags.DEFINE_integer("split_seed", 0, "Of the division of --real.")
  for split in ("train", "valid", "test"):
    flags.DEFINE_string(split, None, f"File of the real {split} graphs, instead of --real.")
  flags.DEFINE_list("synthetic", [], "Files of made graphs; numbers of several are averaged.")
  flags.DEFINE_string("label", None, "Label by which surrogates judge; otherwise the first.")
  flags.DEFINE_integer("seeds", 3, "Surrogates of each kind: seeds 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("max_epochs", 150, "Of a surrogate.", lower_bound=1)
  flags.DEFINE_integer("threads", 1, "Of TensorFlow.", lower_bound=1)
  flags.DEFINE_integer("drawn", 6, "Graphs of each side to draw.", lower_bound=1)
  flags.DEFINE_string("output", "runs/layerdag/evaluation", "Folder of the report.")
  flags.DEFINE_string("results", None, "Also write the numbers to this file, as "
                      "results/layerdag_tpu_tile.json is made.")


def real_graphs(values: flags.FlagValues) -> dict[str, dags.Dags]:
  """The real graphs by split."""
  named = {split: values[split].value for split in ("train", "valid", "test")}
  if bool(values.real) == any(named.values()) or (not values.real and not all(named.values())):
    raise errors.ConfigError("expected either --real, or --train, --valid and --test, the files of "
                             "the real graphs")
  if not values.real:
    return {split: dags.load(path) for split, path in named.items()}
  graphs = dags.load(values.real)
  return {split: graphs.take(rows)
          for split, rows in dags.split_by_wl(graphs, dags.SHARES, values.split_seed).items()}


def by_size(graphs: dags.Dags, count: int) -> dags.Dags:
  """Graphs at even steps of the order by size."""
  order = np.argsort(graphs.sizes, kind="stable")
  steps = (np.arange(count) + 0.5) / count * len(order)
  return graphs.take(order[np.unique(steps.astype(int))])


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  real = real_graphs(values)
  samples = [dags.load(path) for path in values.synthetic]
  seeds = list(range(values.seeds))

  # TensorFlow: after everything that a mistake of the user's can end.
  from tpugraphs_rank.synthesis.judging import report
  from tpugraphs_rank.synthesis.judging import surrogate
  from tpugraphs_rank.training import runtime
  runtime.configure(0, values.threads)
  found = report.evaluate(real, samples, seeds, values.label,
                          surrogate.Options(max_epochs=values.max_epochs))
  source = ({"file": pathlib.Path(values.real).name, "split_seed": values.split_seed,
             "shares": dags.SHARES} if values.real else
            {split: pathlib.Path(values[split].value).name for split in real})
  results: dict[str, Any] = {
      **run_directory.environment(), "seeds": seeds, "real_graphs": source,
      "synthetic_graphs": [pathlib.Path(path).name for path in values.synthetic], **found}
  output = pathlib.Path(values.output)
  text = report.markdown(found)
  files.write_json(output / "results.json", results)
  files.write_text(output / "report.md", text)
  shown = {"real, test": real["test"]}
  shown.update({"made" if len(samples) == 1 else f"made, {pathlib.Path(path).stem}": graphs
                for path, graphs in zip(values.synthetic, samples)})
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
