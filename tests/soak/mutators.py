"""Changes of files that a reader must refuse with a typed error, or read as something valid.

Most change one part of a sound file and keep the rest, so that the damage reaches the code behind
the first checks. Every mutator takes the bytes of a sound file and a generator of random numbers.

They are the project's own, because general fuzzers change bytes: almost all such changes of a zip
archive or of a file with checksums fail in the first check. Invariants of parsers are tested with
Hypothesis elsewhere.
"""

from collections.abc import Callable
import copy
import io
import json
import random
import re
import struct
from typing import Any
import warnings
import zipfile
import zlib

import numpy as np

Mutator = Callable[[bytes, random.Random], bytes]

_HUGE = (2**31 - 1, 2**31, 2**53 + 1, 2**62, 2**63 - 1, 2**64 - 1, 10**30)
_NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, -2**31, -2**63, *_HUGE)
_TEXTS = ("", "\0", "\x1b[31mred", "a" * 300, "../../x", "/dev/zero", "\ud800", "NaN", "1e999", "ä",
          "~nobody/x", "tile:", "(a+)+b")


def raw(data: bytes, rng: random.Random) -> bytes:
  """Flips bits, overwrites, deletes, repeats, cuts."""
  result = bytearray(data)
  for _ in range(rng.randint(1, 4)):
    place = rng.randrange(len(result) + 1)
    action = rng.random()
    if action < 0.5 and place < len(result):
      result[place] ^= 1 << rng.randrange(8)
    elif action < 0.7 and place < len(result):
      result[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif action < 0.8:
      del result[place:place + rng.randint(1, 20)]
    elif action < 0.9:
      result[place:place] = result[place:place + rng.randint(1, 40)]
    elif action < 0.95:
      result[place:place] = b"\xff" * rng.randint(1, 9) + b"\x7f"
    else:
      del result[place:]
  return bytes(result)


# ---- JSON ----------------------------------------------------------------------------------------


def _odd(rng: random.Random) -> Any:
  return rng.choice((
      None, True, False, rng.choice(_NUMBERS), rng.choice(_NUMBERS), rng.random() * 1e300, 0.5,
      rng.choice(_TEXTS), [], {}, [[]], [None], {"a": {}}, list(range(70)), [rng.choice(_TEXTS)]))


def _places(value: Any) -> list[tuple[Any, Any]]:
  """All (container, key) of a JSON value; without recursion."""
  found, stack = [], [value]
  while stack:
    inner = stack.pop()
    keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(
        inner, list) else ()
    for key in keys:
      found.append((inner, key))
      stack.append(inner[key])
  return found


def json_value(value: Any, rng: random.Random) -> Any:
  """A JSON value with other parts."""
  value = copy.deepcopy(value)
  for _ in range(rng.randint(1, 3)):
    places = _places(value)
    if not places or rng.random() < 0.02:
      return _odd(rng)
    container, key = rng.choice(places)
    action = rng.random()
    if action < 0.5:
      old = container[key]
      near = isinstance(old, (int, float)) and not isinstance(old, bool) and rng.random() < 0.4
      container[key] = -old if near else _odd(rng)
    elif action < 0.65:
      del container[key]
    elif action < 0.8 and isinstance(container, dict):
      container[rng.choice((*_TEXTS, f"{key}x", "__class__"))] = container[key]
    elif action < 0.9:
      other, name = rng.choice(places)
      container[key] = copy.deepcopy(other[name]) if name in (
          other if isinstance(other, dict) else range(len(other))) else None
    elif isinstance(container, list):
      container.insert(key, copy.deepcopy(container[key]))
    else:
      container[key] = [container[key]]
  return value


def as_json(data: bytes, rng: random.Random) -> bytes:
  """JSON with other values, or damaged text."""
  if rng.random() < 0.75:
    text = json.dumps(json_value(json.loads(data), rng))
    if rng.random() < 0.05:
      text = "[" * rng.choice((70, 3000)) + text
    return text.encode("utf-8", "surrogatepass")
  changed = raw(data, rng)
  if rng.random() < 0.3:
    changed = re.sub(rb"\d+", lambda match: rng.choice((
        match.group(), b"9" * 5000, b"1e999", b"NaN", b"-Infinity")), changed)
  return rng.choice((b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe")) + changed


# ---- .npz ----------------------------------------------------------------------------------------


def _arrays(data: bytes) -> dict[str, np.ndarray]:
  with np.load(io.BytesIO(data), allow_pickle=False) as stored:
    return {key: stored[key] for key in stored.files}


def _array(array: np.ndarray, rng: random.Random) -> np.ndarray:
  action = rng.randrange(12)
  if array.dtype.kind == "U" and action < 4:
    text = str(array.reshape(-1)[0]) if array.size else ""
    try:
      changed = json.dumps(json_value(json.loads(text), rng))
    except ValueError:
      changed = rng.choice(_TEXTS).replace("\ud800", "?")
    return np.array(changed) if not array.ndim else np.array([changed] * max(array.size, 1))
  if action < 4 and array.size:
    array = array.copy()
    flat = array.reshape(-1)
    with np.errstate(all="ignore"), warnings.catch_warnings():
      warnings.simplefilter("ignore")  # NumPy 1 warns about numbers that do not fit.
      for _ in range(rng.randint(1, 3)):
        value = rng.choice((*_NUMBERS, 1e300, np.nan, np.inf) if array.dtype.kind == "f"
                           else _NUMBERS)
        try:
          flat[rng.randrange(len(flat))] = value
        except (OverflowError, ValueError):
          flat[rng.randrange(len(flat))] = 0
    return array
  if action == 4:
    return array[:rng.randrange(len(array) + 1)] if array.ndim else array[None]
  if action == 5:
    return np.concatenate([array, array]) if array.ndim else np.stack([array] * 2)
  if action == 6:
    return array.T if array.ndim > 1 else array.reshape(-1, 1)
  if action == 7:
    return array.reshape(-1)
  if action == 8:
    return np.asfortranarray(array)
  if action == 9:
    with np.errstate(all="ignore"):
      try:
        return array.astype(rng.choice((
            "i1", "u8", "f2", "f8", ">i4", "?", "U3", "S3", "c8", "M8[s]", "f4", "i8", "f16")))
      except (ValueError, TypeError):
        return array[None]
  if action == 10:
    return np.zeros([rng.choice((0, 1, 3)) for _ in range(rng.randrange(4))], array.dtype)
  pairs = np.zeros(array.shape, [("a", "<f4"), ("b", "<i8")])
  return pairs


def npz(data: bytes, rng: random.Random) -> bytes:
  """Other arrays: values, shapes, dtypes, keys, headers that state something else."""
  if rng.random() < 0.15:
    return raw(data, rng)
  arrays = _arrays(data)
  for _ in range(rng.randint(1, 2)):
    key = rng.choice(sorted(arrays))
    action = rng.random()
    if action < 0.8:
      arrays[key] = _array(arrays[key], rng)
    elif action < 0.9 and len(arrays) > 1:
      del arrays[key]
    else:
      arrays[rng.choice(("x", f"{key}x", *sorted(arrays)))] = arrays[key]
  if rng.random() < 0.8:
    file = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(file, **arrays)
    return file.getvalue()
  return _forged(arrays, rng)


def _forged(arrays: dict[str, np.ndarray], rng: random.Random) -> bytes:
  """An archive in which one header states another shape or dtype than that of its values."""
  file = io.BytesIO()
  chosen = rng.choice(sorted(arrays))
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    for key, array in arrays.items():
      member = io.BytesIO()
      np.lib.format.write_array(member, array, allow_pickle=False)
      content = member.getvalue()
      if key == chosen:
        shape = tuple(rng.choice((side, *_NUMBERS)) for side in array.shape) or (rng.choice(_HUGE),)
        header = {"descr": rng.choice((array.dtype.str, "|O", "<U2147483647", "|V99", "<f4")),
                  "fortran_order": rng.random() < 0.3, "shape": shape}
        text = (repr(header) if rng.random() < 0.8 else "(" * 5000).encode() + b"\n"
        length = rng.choice((len(text), len(text), 2**31))
        content = b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + text + array.tobytes()
      archive.writestr(f"{key}.npy", content)
  return file.getvalue()


# ---- protobuf ------------------------------------------------------------------------------------

_WIRE_VARINT, _WIRE_64, _WIRE_BYTES, _WIRE_32 = 0, 1, 2, 5
_Field = tuple[int, int, Any]


def _varint(value: int) -> bytes:
  value &= 2**64 - 1
  result = bytearray()
  while value > 127:
    result.append(value & 127 | 128)
    value >>= 7
  result.append(value)
  return bytes(result)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    if place >= len(data) or shift > 63:
      raise ValueError
    value |= (data[place] & 127) << shift
    place += 1
    if data[place - 1] < 128:
      return value, place
    shift += 7


def _fields(data: bytes) -> list[_Field] | None:
  """The fields of a message, or None if the bytes are none."""
  place, result = 0, []
  try:
    while place < len(data):
      tag, place = _read_varint(data, place)
      kind = tag & 7
      if kind == _WIRE_VARINT:
        value, place = _read_varint(data, place)
      elif kind in (_WIRE_64, _WIRE_32):
        size = 8 if kind == _WIRE_64 else 4
        value, place = data[place:place + size], place + size
      elif kind == _WIRE_BYTES:
        size, place = _read_varint(data, place)
        value, place = data[place:place + size], place + size
      else:
        return None
      if place > len(data) or not tag >> 3:
        return None
      result.append((tag >> 3, kind, value))
  except ValueError:
    return None
  return result


def _message(fields: list[_Field]) -> bytes:
  parts = []
  for number, kind, value in fields:
    parts.append(_varint(number << 3 | kind))
    if kind == _WIRE_VARINT:
      parts.append(_varint(value))
    else:
      parts.append(_varint(len(value)) + value if kind == _WIRE_BYTES else value)
  return b"".join(parts)


def protobuf(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
  """A message in which a field somewhere within has another value, is missing or repeated."""
  if not depth and rng.random() < 0.15:
    return raw(data, rng)
  fields = _fields(data)
  if not fields:
    return raw(data, rng) if data else rng.choice(_TEXTS).encode("utf-8", "surrogatepass")
  place = rng.randrange(len(fields))
  number, kind, value = fields[place]
  action = rng.random()
  if kind == _WIRE_BYTES and depth < 12 and action < 0.8:
    inner = protobuf(value, rng, depth + 1) if _fields(value) or rng.random() < 0.5 else rng.choice(
        _TEXTS).encode("utf-8", "surrogatepass")
    fields[place] = (number, kind, inner)
  elif kind == _WIRE_VARINT and action < 0.8:
    fields[place] = (number, kind, rng.choice((*_NUMBERS, value + 1, value - 1)))
  elif action < 0.86:
    del fields[place]
  elif action < 0.92:
    fields[place:place] = [fields[place]] * rng.choice((1, 1, 2, 300))
  elif action < 0.96:
    other = rng.randrange(len(fields))
    fields[place], fields[other] = fields[other], fields[place]
  else:
    fields[place] = (rng.choice((number + 1, number - 1, 1, 99)) or 1, kind, value)
  return _message(fields)


# ---- text ----------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\d+|\w+|[^\w\s]|\s+")
_BRACKETS = "([{"


def text(data: bytes, rng: random.Random) -> bytes:
  """Text with other words, numbers, brackets and lines."""
  if rng.random() < 0.15:
    return raw(data, rng)
  tokens = _TOKEN.findall(data.decode("utf-8", "replace"))
  for _ in range(rng.randint(1, 3)):
    place = rng.randrange(len(tokens))
    action = rng.random()
    if action < 0.35 and (numbers := [at for at, word in enumerate(tokens) if word.isdigit()]):
      tokens[rng.choice(numbers)] = str(rng.choice(_NUMBERS))
    elif action < 0.55:
      tokens[place] = tokens[rng.randrange(len(tokens))]
    elif action < 0.7:
      del tokens[place:place + rng.randint(1, 5)]
    elif action < 0.85:
      tokens[place:place] = tokens[place:place + rng.randint(1, 30)]
    elif action < 0.92:
      tokens[place] = rng.choice(_TEXTS)
    else:
      tokens[place:place] = [rng.choice(_BRACKETS)] * rng.choice((1, 40, 3000))
    tokens = tokens or [" "]
  return "".join(tokens).encode("utf-8", "surrogatepass")


# ---- packed files --------------------------------------------------------------------------------

_PREFIX = struct.Struct("<8sIIQQ")


def packed(data: bytes, rng: random.Random) -> bytes:
  """A packed file with a forged table whose checksum is right, or with damage anywhere."""
  if rng.random() < 0.2:
    return raw(data, rng)
  magic, version, _, start, length = _PREFIX.unpack_from(data)
  table = json.loads(data[start:start + length])
  arrays = data[_PREFIX.size:start]
  if rng.random() < 0.7:
    table = json_value(table, rng)
  else:
    # Other values of one array, with the right checksum.
    name = rng.choice(sorted(table["arrays"]))
    entry = table["arrays"][name]
    size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
    first = entry["offset"] - _PREFIX.size
    content = bytearray(arrays[first:first + size])
    for _ in range(rng.randint(1, 3) if content else 0):
      content[rng.randrange(len(content))] = rng.randrange(256)
    arrays = arrays[:first] + bytes(content) + arrays[first + size:]
    entry["crc32"] = zlib.crc32(content)
  content = json.dumps(table).encode("utf-8", "surrogatepass")
  return _PREFIX.pack(magic, version, zlib.crc32(content), start, len(content)) + arrays + content
