"""Converts a file of StableHLO to a serialised `HloModuleProto`.

  python -m tpugraphs_rank.collect.common.stablehlo_to_hlo PROGRAM RESULT

Runs in the collector's environment. Only jaxlib is imported: no devices are initialised.
"""

import pathlib
import sys

from jaxlib import xla_client

_BYTECODE = b"ML\xefR"


def convert(content: bytes) -> bytes:
  """The HLO of a program.

  Args:
    content: StableHLO as text or bytecode, or a portable artifact.
  """
  mlir = xla_client._xla.mlir  # jaxlib has no public name for it.
  program: bytes | str = content
  if content.startswith(_BYTECODE):
    try:
      program = mlir.deserialize_portable_artifact(content)
    except Exception:  # Ordinary bytecode.
      program = content
  else:
    program = content.decode("utf-8", "replace")
  return mlir.mlir_module_to_xla_computation(program).as_serialized_hlo_module_proto()


if __name__ == "__main__":
  try:
    converted = convert(pathlib.Path(sys.argv[1]).read_bytes())
  except Exception as error:
    sys.exit(str(error))
  pathlib.Path(sys.argv[2]).write_bytes(converted)
