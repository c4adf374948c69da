"""Reads traces with the reference implementation; runs in its environment.

  python read_traces.py FILE ...

prints for each file a line of JSON: the metadata's version, and for each node its id, name, type,
dependencies, duration and attributes with their kinds.
"""

import json
import sys

from chakra.schema.protobuf import et_def_pb2
from chakra.src.third_party.utils import protolib


def _attributes(owner):
  result = []
  for attribute in owner.attr:
    kind = attribute.WhichOneof("value")
    value = getattr(attribute, kind)
    value = list(value.values) if kind.endswith("_list") else value
    result.append([attribute.name, kind, repr(value)])
  return result


def read(path):
  """A trace as a value for JSON."""
  file = protolib.openFileRd(path)
  metadata = et_def_pb2.GlobalMetadata()
  protolib.decodeMessage(file, metadata)
  nodes = []
  node = et_def_pb2.Node()
  while protolib.decodeMessage(file, node):
    nodes.append([node.id, node.name, node.type, list(node.data_deps), list(node.ctrl_deps),
                  node.duration_micros, _attributes(node)])
  file.close()
  return {"version": metadata.version, "attributes": _attributes(metadata), "nodes": nodes}


if __name__ == "__main__":
  for path in sys.argv[1:]:
    print(json.dumps(read(path)))
