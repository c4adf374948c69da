"""Loads a tuned program as a function, in an environment with JAX."""

from collections.abc import Callable
import os
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files

PROGRAM = "tuned.mlir"
# Types of plain Python and NumPy numbers, which are converted as JAX does.
_WIDE = {np.dtype(wide): np.dtype(narrow) for wide, narrow in (
    ("float64", "float32"), ("int64", "int32"), ("complex128", "complex64"))}


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
  content = executable.hlo_modules()[0].as_serialized_hlo_module_proto()
  expected = [(tuple(shape.dimensions()), shape.numpy_dtype())
              for shape in xla_client.XlaComputation(content).program_shape().parameter_shapes()]

  def tuned(*arguments: Any) -> list[Any]:
    if len(arguments) != len(expected):
      raise TypeError(f"the program has {len(expected)} parameters; {len(arguments)} were given")
    values = [argument if isinstance(argument, jax.Array) else np.asarray(argument)
              for argument in arguments]
    for number, (shape, dtype) in enumerate(expected):
      if values[number].dtype in _WIDE and dtype == _WIDE[values[number].dtype]:
        values[number] = values[number].astype(dtype)
      if values[number].shape != shape or values[number].dtype != dtype:
        raise TypeError(
            f"argument {number} has the shape {values[number].shape} and the type "
            f"{values[number].dtype}; the program expects {shape} and {dtype}")
    with jax.enable_x64(True):  # Otherwise 64-bit arguments lose half of their bits.
      placed = [jax.device_put(value, device) for value in values]
    results = executable.execute_sharded(placed).disassemble_into_single_device_arrays()
    return [shards[0] for shards in results]

  return tuned
