"""The collector: compiles real programs with XLA, times them, and makes collections of the results.

The measuring code runs in an environment of its own, which has JAX and no TensorFlow; `environment`
makes it. README.md describes what is measured, and how.
"""

import pathlib


def measure_ranked(file: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
  """Measures the configurations in a raw file, in the collector's environment.

  Args:
    file: the raw file, as `tpugraphs-rank rank` writes it.
    output: folder of the results. It belongs to this file: what it holds is not measured again.

  Returns:
    The raw files with the runtimes, one a pass.

  Raises:
    CompatibilityError: a program is in none of the collector's catalogues.
    OutputError: the environment could not be made, or the measurement failed.
  """
  from tpugraphs_rank.collect import environment
  from tpugraphs_rank.collect import remeasure
  from tpugraphs_rank.hlo import reading
  modules = reading.read_raw(file).modules
  remeasure.check_known([data.module.name for data in modules], remeasure.is_layout(modules))
  environment.run("tpugraphs_rank.collect.remeasure", "--input", str(file.resolve()), "--output",
                  str(output.resolve()))
  return sorted(output.glob("pass*.pb"))
