"""Typed attributes of trace nodes and of a trace's metadata.

An attribute is a name with a value of one of 30 kinds, `int64_val` or `bool_list` for instance.
Simulators look for an attribute by name and then read one kind only: another kind gives them zero.
`SIMULATOR_KINDS` lists the kinds that they read (ASTRA-sim's trace feeder).
"""

from collections.abc import Sequence
import math
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import et_def_pb2

Owner = et_def_pb2.Node | et_def_pb2.GlobalMetadata

_ONEOF = "value"
KINDS = tuple(field.name for field in
              et_def_pb2.AttributeProto.DESCRIPTOR.oneofs_by_name[_ONEOF].fields)

SIMULATOR_KINDS = {
    "is_cpu_op": "bool_val",
    "num_ops": "int64_val",
    "tensor_size": "uint64_val",
    "comm_type": "int64_val",
    "comm_size": "int64_val",
    "comm_priority": "int32_val",
    "comm_src": "int32_val",
    "comm_dst": "int32_val",
    "comm_tag": "int32_val",
    "involved_dim": "bool_list",
    "pg_name": "string_val",
}
_INFERRED = ((bool, "bool"), (int, "int64"), (float, "double"), (str, "string"), (bytes, "bytes"))


def find(owner: Owner, name: str) -> et_def_pb2.AttributeProto | None:
  """The attribute of this name; the last one if there are several, as simulators read them."""
  result = None
  for attribute in owner.attr:
    if attribute.name == name:
      result = attribute
  return result


def value(attribute: et_def_pb2.AttributeProto) -> Any:
  """The value as a Python value, lists as lists; None for an attribute without a known kind."""
  kind = attribute.WhichOneof(_ONEOF)
  if kind is None:
    return None
  content = getattr(attribute, kind)
  return list(content.values) if kind.endswith("_list") else content


def kind(attribute: et_def_pb2.AttributeProto) -> str | None:
  """The kind of the value, one of KINDS; None for an attribute without a known kind."""
  return attribute.WhichOneof(_ONEOF)


def get(owner: Owner, name: str, default: Any = None) -> Any:
  """The value of an attribute, `default` if there is no such attribute or it has no value."""
  attribute = find(owner, name)
  result = None if attribute is None else value(attribute)
  return default if result is None else result


def number(owner: Owner, name: str) -> int | None:
  """The value of a numeric attribute as a whole number, whatever its kind.

  Returns:
    None if there is no such attribute, or it is not a finite number. A number in a string counts:
    some tools write sizes that way.
  """
  return as_number(get(owner, name))


def as_number(result: Any) -> int | None:
  """The value of an attribute as a whole number; see `number`."""
  if isinstance(result, str):
    try:
      result = float(result) if len(result) <= 40 else None
    except ValueError:
      return None
  if isinstance(result, float):
    return int(result) if math.isfinite(result) else None
  return int(result) if isinstance(result, int) else None


def put(owner: Owner, name: str, content: Any, kind_name: str | None = None) -> None:
  """Sets an attribute; one of the same name is replaced where it is.

  Args:
    owner: the node or metadata.
    name: of the attribute.
    content: its value; a sequence for the kinds that end in `_list`.
    kind_name: one of KINDS; None: the kind that simulators read, for a name in SIMULATOR_KINDS,
      else the kind that fits the Python type.

  Raises:
    DataError: the value does not fit the kind; nothing is changed then.
  """
  new = _new(name, content, kind_name)
  old = find(owner, name)
  if old is None:
    owner.attr.append(new)
  else:
    new.doc_string = old.doc_string
    old.CopyFrom(new)


def add(owner: Owner, name: str, content: Any, kind_name: str | None = None) -> None:
  """Sets an attribute of a name that the owner does not have yet, without looking for it.

  Args and raises: as `put`.
  """
  owner.attr.append(_new(name, content, kind_name))


def _new(name: str, content: Any, kind_name: str | None) -> et_def_pb2.AttributeProto:
  chosen = kind_name or SIMULATOR_KINDS.get(name) or _inferred(name, content)
  if chosen not in KINDS:
    raise errors.DataError(f"attribute {name!r}: unknown kind {chosen!r}; expected one of: "
                           f"{', '.join(KINDS)}")
  new = et_def_pb2.AttributeProto(name=name)
  try:
    if chosen.endswith("_list"):
      holder = getattr(new, chosen)
      holder.SetInParent()
      holder.values.extend(content)
    else:
      setattr(new, chosen, content)
  except (TypeError, ValueError, OverflowError) as error:
    raise errors.DataError(
        f"attribute {name!r}: {str(content)[:80]!r} does not fit the kind {chosen} ({error}); pass "
        "a value of that kind") from None
  return new


def remove(owner: Owner, name: str) -> bool:
  """Removes all attributes of this name; whether there was one."""
  kept = [attribute for attribute in owner.attr if attribute.name != name]
  removed = len(kept) < len(owner.attr)
  if removed:
    copies = []
    for attribute in kept:
      copy = et_def_pb2.AttributeProto()
      copy.CopyFrom(attribute)
      copies.append(copy)
    del owner.attr[:]
    owner.attr.extend(copies)
  return removed


def as_dict(owner: Owner) -> dict[str, Any]:
  """All attributes with a known kind, by name."""
  return {attribute.name: content for attribute in owner.attr
          if (content := value(attribute)) is not None}


def _inferred(name: str, content: Any) -> str:
  is_list = isinstance(content, Sequence) and not isinstance(content, (str, bytes))
  sample = content[0] if is_list and content else content
  for python_type, start in _INFERRED:
    if isinstance(sample, python_type):
      return f"{start}_list" if is_list else f"{start}_val"
  raise errors.DataError(f"attribute {name!r}: no kind for {str(content)[:80]!r}; pass kind_name")
