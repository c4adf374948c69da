"""Compiles a program with JAX's compiler, stores the machine code, and runs it.

This module needs JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxlib import lapack
from jaxlib import xla_client
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import memory
from tpugraphs_rank.collect.hlo import parameters
from tpugraphs_rank.hlo import hlo_pb2

_SHOWN = 300
_MOST_BYTES = 1 << 36
_mlir = xla_client._xla.mlir  # jaxlib has no public name for it.


def module_of_text(content: str, source: str) -> hlo_pb2.HloModuleProto:
  """A program with all of its fields, from HLO text.

  Raises:
    DataError: XLA cannot read it.
  """
  try:
    module = xla_client.hlo.hlo_module_from_text(content)
  except Exception as error:
    raise errors.DataError(f"{source}: XLA cannot read this HLO text: {_first(error)}") from None
  return hlo_pb2.HloModuleProto.FromString(module.as_serialized_hlo_module_proto())


def _first(error: Exception) -> str:
  return escaping.shown(" ".join(str(error).split())[:_SHOWN], _SHOWN)


def stablehlo(module: hlo_pb2.HloModuleProto, source: str = "the module") -> str:
  """A program as StableHLO, with its requests.

  Raises:
    DataError: it has something that StableHLO lacks.
  """
  try:
    computation = xla_client.XlaComputation(module.SerializeToString())
    return _mlir.xla_computation_to_mlir_module(computation)
  except Exception as error:
    raise errors.DataError(
        f"{source} cannot be converted to StableHLO: {_first(error)}; export it before "
        "optimisation, for one device") from None


class Compiler:
  """Compiles programs for the first device of this process."""

  def __init__(self) -> None:
    if hasattr(lapack, "_lapack"):
      lapack._lapack.initialize()  # Otherwise factorisations crash: no program of JAX ran yet.
    self._device = jax.devices()[0]
    self._client = self._device.client
    self._devices = xla_client.DeviceList((self._device,))

  def compile(self, module: hlo_pb2.HloModuleProto, source: str = "the module") -> Any:
    """A loaded executable.

    Raises:
      DataError: the compiler refuses the program; the message has its reason.
    """
    content = stablehlo(module, source)
    try:
      return self._client.compile_and_load(content, self._devices, xla_client.CompileOptions())
    except Exception as error:
      raise errors.DataError(f"{source} does not compile on this machine: {_first(error)}"
                             ) from None

  def store(self, executable: Any) -> bytes:
    """The machine code of an executable."""
    return self._client.serialize_executable(executable)

  def load(self, content: bytes) -> Any:
    """The executable with some machine code that this machine has compiled."""
    return self._client.deserialize_executable(
        content, self._devices, xla_client.CompileOptions())

  def arguments(self, module: hlo_pb2.HloModuleProto, rng: np.random.Generator,
                reals: tuple[float, float], source: str = "the module") -> list[Any]:
    """Random arguments on the device.

    Raises:
      DataError: a parameter cannot be fed.
      LimitError: they need too much memory.
    """
    listed = parameters.parameters(module, source)
    shapes = xla_client.XlaComputation(
        module.SerializeToString()).program_shape().parameter_shapes()
    types = [np.dtype(shape.numpy_dtype()) for shape in shapes]
    memory.check(sum(2 * parameter.elements * max(dtype.itemsize, 8)
                     for parameter, dtype in zip(listed, types)), _MOST_BYTES,
                 f"{source}: what its arguments need")
    with jax.enable_x64(True):  # Otherwise 64-bit arguments lose half of their bits.
      return [jax.device_put(parameters.draw(parameter, dtype, rng, reals), self._device)
              for parameter, dtype in zip(listed, types, strict=True)]


def caller(executable: Any, arguments: Sequence[Any]) -> Callable[[], list[Any]]:
  """A function that runs an executable to its end, and returns its results on the device.

  It raises DataError if the program fails.
  """
  listed = list(arguments)

  def call() -> list[Any]:
    try:
      results = executable.execute_sharded(listed).disassemble_into_single_device_arrays()
      return jax.block_until_ready([shards[0] for shards in results])
    except jax.errors.JaxRuntimeError as error:
      raise errors.DataError(f"the program fails when it runs: {_first(error)}") from None

  return call


def optimised_text(executable: Any) -> str:
  """The optimised HLO of an executable."""
  return "\n".join(module.to_string() for module in executable.hlo_modules())
