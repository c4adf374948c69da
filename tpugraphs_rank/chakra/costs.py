"""Costs that a user gives for kinds of nodes, in a JSON file.

  {"attribute": "operator",
   "costs": {"aten::mm": {"num_ops": 4194304, "tensor_size": 98304, "duration_micros": 12},
             "c10d::allreduce_": {"type": "COMM_COLL_NODE", "comm_type": "ALL_REDUCE",
                                  "comm_size": 1048576, "is_cpu_op": false}}}

`attribute` is the attribute of the graphs whose values `costs` lists. What an entry states replaces
what the graph has; the rest stays.
"""

from collections.abc import Collection, Mapping
import dataclasses
from typing import Any

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.chakra import node_kinds

# Keys of an entry, and the field of a node that they set (`decoding.Nodes`).
NUMBERS = {"duration_micros": "duration", "num_ops": "operations", "tensor_size": "size",
           "comm_size": "size"}
_KEYS = (*NUMBERS, "type", "comm_type", "is_cpu_op")
_LARGEST = 2 ** 63 - 1


@dataclasses.dataclass(frozen=True)
class Costs:
  """Costs of kinds of nodes.

  Attributes:
    attribute: the attribute of the graphs that separates the kinds.
    fields: for each of its values the fields of `decoding.Nodes` to set.
  """

  attribute: str
  fields: Mapping[str, Mapping[str, int]]


def read(path: files.PathLike) -> Costs:
  """Reads a file of costs.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is no JSON of this form; the message names the key.
  """
  return parse(files.read_json(path), str(path))


def parse(value: Any, source: str) -> Costs:
  """Checks costs; see the module for the form.

  Raises:
    DataError: the value has another form; the message names the key.
  """
  if not isinstance(value, dict) or set(value) != {"attribute", "costs"}:
    raise errors.DataError(
        f"{source}: the file is {escaping.value(value)}; expected an object with the keys "
        "'attribute' and 'costs', such as "
        '{"attribute": "operator", "costs": {"aten::mm": {"num_ops": 1000, "tensor_size": 64}}}')
  if not isinstance(value["attribute"], str) or not isinstance(value["costs"], dict):
    raise errors.DataError(
        f"{source}: 'attribute' is {escaping.value(value['attribute'])} and 'costs' is "
        f"{escaping.value(value['costs'])}; expected the name of an attribute, such as 'operator', "
        "and an object with its values as keys")
  return Costs(value["attribute"], {
      word: _entry(entry, f"{source}: costs[{word!r}]") for word, entry in value["costs"].items()})


def check(costs: Costs, vocabularies: Mapping[str, Collection[str]]) -> None:
  """Checks that costs are for values that the graphs have.

  Args:
    costs: as `read` gives them.
    vocabularies: for each attribute of the graphs its values.

  Raises:
    DataError: the graphs lack the attribute or a value; the message names the most similar one.
  """
  if costs.attribute not in vocabularies:
    raise errors.DataError(
        f"the costs are for values of {costs.attribute!r}, but the graphs have the attributes "
        f"{', '.join(map(escaping.shown, vocabularies))}; name one of them in the file of costs")
  known = vocabularies[costs.attribute]
  unknown = sorted(set(costs.fields) - set(known))
  if unknown:
    more = f" (and {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
    raise errors.DataError(
        f"the costs name {unknown[0]!r}{more}, which is no value of {costs.attribute!r} in the "
        f"graphs{config.nearest(unknown[0], known)}; expected values such as "
        f"{', '.join(map(escaping.shown, sorted(known)[:3]))}; correct the name in the file of "
        "costs, or remove it")


def of_values(costs: Costs, names: Mapping[str, str]) -> Costs:
  """The costs of some values, under other names; `names` holds the new name of each."""
  return Costs(costs.attribute, {
      names[word]: entry for word, entry in costs.fields.items() if word in names})


def _entry(entry: Any, where: str) -> dict[str, int]:
  if not isinstance(entry, dict) or not entry:
    raise errors.DataError(f"{where} is {escaping.value(entry)}; expected an object with some of: "
                           f"{', '.join(_KEYS)}")
  fields: dict[str, int] = {}
  for key, content in entry.items():
    field, number = _field(key, content, where)
    if field in fields:
      raise errors.DataError(f"{where}: tensor_size and comm_size are both the bytes of a node; "
                             "keep comm_size for communication, else tensor_size")
    fields[field] = number
  return fields


def _field(key: str, content: Any, where: str) -> tuple[str, int]:
  if key in NUMBERS:
    if type(content) is not int or not 0 <= content <= _LARGEST:
      raise errors.DataError(
          f"{where}: {key} is {escaping.value(content, 40)}; expected a whole number from 0 to "
          "2^63 - 1")
    return NUMBERS[key], content
  if key == "is_cpu_op":
    if type(content) is not bool:
      raise errors.DataError(
          f"{where}: is_cpu_op is {escaping.value(content, 40)}; expected true or false")
    return "device", int(content)
  if key in ("type", "comm_type"):
    convert = node_kinds.type_number if key == "type" else node_kinds.collective_number
    number = convert(content) if isinstance(content, str) else None
    if number is None:
      example = "COMP_NODE" if key == "type" else "ALL_REDUCE"
      raise errors.DataError(
          f"{where}: {key} is {str(content)[:40]!r}; expected a name such as {example!r}")
    return "types" if key == "type" else "collective", number
  raise errors.DataError(f"{where}: unknown key {key!r}{config.nearest(key, _KEYS)}; expected some "
                         f"of: {', '.join(_KEYS)}")
