"""Measures packed collections: packing, reading, opening, and training beyond memory.

  python -m experiments.benchmark_packing --output runs/benchmark_packing
  python -m experiments.benchmark_packing --output runs/benchmark_packing --parts packing,opening

Writes `packing.json` into `--output`, and prints it. `--folder` gets some gigabytes of made-up data,
which are removed at the end: packing the largest public shapes, opening 200 graphs, and training on
a collection whose layouts, unpacked, are ten times this machine's memory (its packed files are mostly
holes). Nothing else should run meanwhile.
"""

import json
import pathlib
import tempfile

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank.cli import app

PARTS = ("packing", "opening", "training")


# Defined only when this is the program: other apps use the same flag names.
def _define_flags() -> None:
  flags.DEFINE_string("output", "runs/benchmark_packing", "Folder of the results.")
  flags.DEFINE_multi_enum("parts", list(PARTS), list(PARTS), "What is measured.")
  flags.DEFINE_string("folder", None, "Folder on the disk that is measured; otherwise --output.")
  flags.DEFINE_float("times_memory", 10.0, "Unpacked size of what is trained on, in sizes of this "
                     "machine's memory.", lower_bound=0.0)
  flags.DEFINE_string("case", None, "One case: used by this command itself.")


def main(_) -> None:
  values = flags.FLAGS
  from experiments.benchmarks import packing
  if values.case:
    print(json.dumps(packing.one_case(values.case)))
    return
  from tpugraphs_rank.training import run_directory
  found = run_directory.environment()
  output = pathlib.Path(values.output)
  output.mkdir(parents=True, exist_ok=True)
  for part in values.parts:
    with tempfile.TemporaryDirectory(dir=values.folder or output) as name:
      folder = pathlib.Path(name)
      found[part] = (packing.training(folder, values.times_memory) if part == "training"
                     else getattr(packing, part)(folder))
  files.write_json(output / "packing.json", found)
  print(json.dumps({part: found[part] for part in values.parts}, indent=2))


if __name__ == "__main__":
  _define_flags()
  app.run(main)
