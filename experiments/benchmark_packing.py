"""Measures packed collections: packing, reading, opening, and training beyond memory.

  python -m experiments.benchmark_packing --output runs/benchmark_packing
  python -m experiments.benchmark_packing --output runs/benchmark_packing --parts packing,opening

Writes `packing.json` to `--output`, and prints it. `--folder` temporarily holds some gigabytes of
synthetic data. The parts pack the largest public shapes, open 200 graphs, and train on a collection
whose unpacked layouts are ten times this machine's memory (its packed files are sparse). Run
nothing else at the same time.
"""

import json
import pathlib
import tempfile

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank.cli import app

PARTS = ("packing", "opening", "training")


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/benchmark_packing", "Folder of the results.")
  flags.DEFINE_multi_enum("parts", list(PARTS), list(PARTS), "The parts to measure.")
  flags.DEFINE_string("folder", None, "Folder on the disk to measure. Default: --output.")
  flags.DEFINE_float("times_memory", 10.0, "Unpacked size of the training collection, as a "
                     "multiple of this machine's memory.", lower_bound=0.0)
  flags.DEFINE_string("case", None, "One case; for internal use.")


def main(argv: list[str]) -> None:
  """Runs the benchmark."""
  values = flags.FLAGS
  from experiments.benchmarks import packing
  if values.case:
    print(json.dumps(packing.one_case(values.case)))
    return
  from tpugraphs_rank.training import run_directory
  results = run_directory.environment()
  output = pathlib.Path(values.output)
  output.mkdir(parents=True, exist_ok=True)
  for part in values.parts:
    with tempfile.TemporaryDirectory(dir=values.folder or output) as name:
      folder = pathlib.Path(name)
      results[part] = (packing.training(folder, values.times_memory) if part == "training"
                     else getattr(packing, part)(folder))
  files.write_json(output / "packing.json", results)
  print(json.dumps({part: results[part] for part in values.parts}, indent=2))


if __name__ == "__main__":
  app.run(main, define_flags)
