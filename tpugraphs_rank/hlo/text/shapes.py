"""Shapes in HLO text: `f32[4,<=8]{1,0:T(8,128)}`, `(s32[], (f32[2], token[]))`."""

import re

from tpugraphs_rank import escaping
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo.text import scanner as scanning

# Tuples in tuples. Protobuf refuses messages that are nested more than about 100 deep.
MAX_DEPTH = 32
UNKNOWN_DIMENSION = -2**63  # XLA's number for `?`.

ELEMENT_TYPES: dict[str, hlo_pb2.PrimitiveType] = {
    name.lower(): number for name, number in hlo_pb2.PrimitiveType.items()
    if name not in ("PRIMITIVE_TYPE_INVALID", "TUPLE", "OPAQUE_TYPE", "BUFFER")}
ELEMENT_TYPES["opaque"] = hlo_pb2.OPAQUE_TYPE
_WITHOUT_LAYOUT = (hlo_pb2.OPAQUE_TYPE, hlo_pb2.TOKEN)

_ARRAY = re.compile(r"([A-Za-z][A-Za-z0-9]*)\[([^\[\](){}\"']*)\]")
# A brace after a shape is its layout, unless it opens the body of a computation.
_LAYOUT = re.compile(r"\{(?=\s*[\d:}])")
_START = re.compile(r"\(|b\(|[A-Za-z][A-Za-z0-9]*\[")


class Shapes:
  """Reads shapes; programs repeat a few of them, so each text is read once."""

  def __init__(self, scanner: scanning.Scanner):
    self._scanner = scanner
    self._known: dict[str, hlo_pb2.ShapeProto] = {}

  def comes_next(self) -> bool:
    """Whether a shape comes next."""
    self._scanner.blank()
    return _START.match(self._scanner.text, self._scanner.position) is not None

  def read(self) -> hlo_pb2.ShapeProto:
    """Passes over a shape. The message is shared: copy it, do not change it.

    Raises:
      DataError: there is no shape, or it has an unknown element type or damaged dimensions.
    """
    scanner = self._scanner
    scanner.blank()
    start = scanner.position
    if not self.comes_next():
      raise scanner.error(f"expected a shape such as f32[2,3], but there is {scanner.upcoming()}")
    if scanner.text.startswith(("(", "b("), start):
      scanner.position = scanner.text.index("(", start)
      scanner.group()
      key = scanner.text[start:scanner.position]
      if key not in self._known:
        scanner.position = start
        self._known[key] = self._read_tuple()
      return self._known[key]
    end = _array_end(scanner)
    key = scanner.text[start:end]
    if key not in self._known:
      self._known[key] = hlo_pb2.ShapeProto()
      self._read_array(self._known[key])
    scanner.position = end
    return self._known[key]

  def _read_tuple(self) -> hlo_pb2.ShapeProto:
    scanner = self._scanner
    holder = hlo_pb2.ShapeProto()  # Its only element is the result.
    open_tuples = [holder]
    is_after_element = False
    while True:
      if is_after_element:
        if len(open_tuples) == 1:
          return holder.tuple_shapes[0]
        if scanner.take(")"):
          open_tuples.pop()
          continue
        scanner.expect(",", "or ')' in a tuple's shape")
      elif len(open_tuples) > 1 and scanner.take(")"):  # An empty tuple.
        open_tuples.pop()
        is_after_element = True
        continue
      element = open_tuples[-1].tuple_shapes.add()
      is_buffer = scanner.take("b(")
      if is_buffer or scanner.take("("):
        element.element_type = hlo_pb2.BUFFER if is_buffer else hlo_pb2.TUPLE
        open_tuples.append(element)
        if len(open_tuples) > MAX_DEPTH:
          raise scanner.error(f"a shape has tuples more than {MAX_DEPTH} deep")
        is_after_element = False
      else:
        self._read_array(element)
        is_after_element = True

  def _read_array(self, shape: hlo_pb2.ShapeProto) -> None:
    scanner = self._scanner
    scanner.blank()
    start = scanner.position
    found = scanner.match(_ARRAY)
    if found is None:
      raise scanner.error(f"expected a shape such as f32[2,3], but there is {scanner.upcoming()}")
    number = ELEMENT_TYPES.get(found[1].lower())
    if number is None:
      raise scanner.error(
          f"unknown element type {found[1]!r}; known ones are {', '.join(ELEMENT_TYPES)}", start)
    shape.element_type = number
    try:
      shape.dimensions.extend(map(_dimension, found[2].split(",") if found[2].strip() else ()))
    except ValueError:
      raise scanner.error(
          f"damaged dimensions [{escaping.shown(found[2], 40)}]; expected whole numbers below "
          "2**63, `<=N` or `?`", start) from None
    if number in _WITHOUT_LAYOUT:
      return
    rank = len(shape.dimensions)
    shape.layout.SetInParent()
    if not _LAYOUT.match(scanner.text, scanner.position):
      # XLA means the default layout where it prints none.
      shape.layout.minor_to_major.extend(range(rank - 1, -1, -1))
      return
    start = scanner.position
    order = scanner.group()[1:-1].partition(":")[0]
    try:
      shape.layout.minor_to_major.extend(
          scanning.integer(axis) for axis in order.split(",") if axis.strip())
    except ValueError:
      raise scanner.error(
          f"damaged layout {{{escaping.shown(order, 40)}}}", start) from None
    if len(shape.layout.minor_to_major) != rank:
      raise scanner.error(
          f"a layout of {len(shape.layout.minor_to_major)} axes for a shape of {rank}", start)


def _array_end(scanner: scanning.Scanner) -> int:
  """The end of the array shape that comes next, with its layout."""
  start = scanner.position
  found = _ARRAY.match(scanner.text, start)
  end = found.end() if found else scanner.text.find("[", start) + 1
  if _LAYOUT.match(scanner.text, end):
    scanner.position = end
    scanner.group()
    end = scanner.position
    scanner.position = start
  return end


def _dimension(text: str) -> int:
  text = text.strip().removeprefix("<=").strip()
  return UNKNOWN_DIMENSION if text == "?" else scanning.integer(text)
