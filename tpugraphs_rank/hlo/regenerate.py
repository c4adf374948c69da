"""Regenerates `hlo_pb2.py` and `tuning_pb2.py` from the `.proto` files beside this one.

    python -m venv build/protoc && build/protoc/bin/pip install grpcio-tools==1.62.3 setuptools
    build/protoc/bin/python tpugraphs_rank/hlo/regenerate.py

The compiler's version matters: code from a newer one refuses to load under the protobuf 4 that
TensorFlow 2.15 needs. grpcio-tools is wanted only here, hence the throw-away environment; for the
same reason this script imports nothing else of the package.
"""

import pathlib
import sys

PROTO_FILES = ("tpugraphs_rank/hlo/hlo.proto", "tpugraphs_rank/hlo/tuning.proto")


def regenerate(output: pathlib.Path) -> None:
  """Writes the two `_pb2.py` files below the folder `output`.

  Raises:
    ImportError: grpcio-tools is not installed in this environment.
    RuntimeError: the compiler refuses a `.proto` file; it has named the line on stderr.
  """
  from grpc_tools import protoc  # pylint: disable=import-outside-toplevel
  root = pathlib.Path(__file__).resolve().parents[2]
  status = protoc.main(
      ["protoc", f"--proto_path={root}", f"--python_out={output}", *PROTO_FILES])
  if status != 0:
    raise RuntimeError(f"protoc ended with status {status}; its message is above")


if __name__ == "__main__":
  regenerate(pathlib.Path(__file__).resolve().parents[2])
  sys.exit(0)
