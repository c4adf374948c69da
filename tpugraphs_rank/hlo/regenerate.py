"""Regenerates the `_pb2.py` files of the package and their type stubs from the `.proto` files.

    python -m venv build/protoc && build/protoc/bin/pip install grpcio-tools==1.62.3 setuptools
    build/protoc/bin/python tpugraphs_rank/hlo/regenerate.py

The compiler's version matters: the protobuf 4 that TensorFlow 2.15 needs refuses to load code from
a newer compiler. Only this script needs grpcio-tools, so it runs in a temporary environment and
imports nothing else of the package.
"""

import pathlib
import sys

PROTO_FILES = ("tpugraphs_rank/hlo/hlo.proto", "tpugraphs_rank/hlo/tuning.proto",
               "tpugraphs_rank/chakra/et_def.proto")


def regenerate(output: pathlib.Path) -> None:
  """Writes the `_pb2.py` files and their `.pyi` stubs below the folder `output`.

  Raises:
    ImportError: grpcio-tools is not installed in this environment.
    RuntimeError: the compiler rejects a `.proto` file; it has printed the line to stderr.
  """
  from grpc_tools import protoc
  root = pathlib.Path(__file__).resolve().parents[2]
  status = protoc.main([
      "protoc", f"--proto_path={root}", f"--python_out={output}", f"--pyi_out={output}",
      *PROTO_FILES])
  if status != 0:
    raise RuntimeError(f"protoc failed with status {status}; see its message above")


if __name__ == "__main__":
  regenerate(pathlib.Path(__file__).resolve().parents[2])
  sys.exit(0)
