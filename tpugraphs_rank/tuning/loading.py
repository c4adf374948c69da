"""Loads a tuned program as a function, in an environment with JAX."""

from collections.abc import Callable
import os
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files

PROGRAM = "tuned.mlir"


def load(folder: files.PathLike) -> Callable[..., list[Any]]:
  """The tuned program in a folder of the command `tune`, compiled for this machine's CPU.

  JAX must be installed in this environment, in the version of `collect/requirements.txt`. Requested
  layouts are those that were measured if XLA has the same flags as in the measurement; see
  `collect/README.md`.

  Args:
    folder: the output folder of `tune`.

  Returns:
    A function of the program's parameters in their order, as arrays (the parts of a tuple count as
    parameters of their own). It returns the results as a list of JAX arrays.

  Raises:
    MissingDataError: the folder has no tuned program.
    CompatibilityError: JAX is not installed.
    DataError: the compiler refuses the program.
  """
  path = pathlib.Path(folder) / PROGRAM
  if not path.is_file():
    raise errors.MissingDataError(
        f"no file {path}; expected the output folder of a finished `tune`")
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  try:
    import jax
    from jaxlib import lapack
    from jaxlib import xla_client
  except ImportError as error:
    raise errors.CompatibilityError(
        f"a tuned program needs JAX, which is not installed in this environment ({error}); use "
        "the collector's environment") from None
  lapack._lapack.initialize()  # jaxlib has no public name for it.
  device = jax.devices("cpu")[0]
  try:
    executable = device.client.compile_and_load(
        path.read_text(encoding="utf-8"), xla_client.DeviceList((device,)),
        xla_client.CompileOptions())
  except Exception as error:
    raise errors.DataError(f"{path}: XLA does not compile it: {str(error)[:300]}") from None
  shapes = executable.get_parameter_layouts()

  def tuned(*arguments: Any) -> list[Any]:
    if len(arguments) != len(shapes):
      raise TypeError(f"the program has {len(shapes)} parameters; {len(arguments)} were given")
    placed = [jax.device_put(argument, device) for argument in arguments]
    results = executable.execute_sharded(placed).disassemble_into_single_device_arrays()
    return [shards[0] for shards in results]

  return tuned
