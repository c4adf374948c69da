"""Applies tuned layouts to the JAX function that a program came from. This module needs JAX."""

from collections.abc import Callable
import functools
import logging
import pathlib
from typing import Any

import jax

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import matching
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.collect.layout import sites as sites_lib
from tpugraphs_rank.hlo import hlo_pb2

_RESULT = "tuned.json"

_log = logging.getLogger("tpugraphs_rank.tune")


def applied(folder: files.PathLike, strict: bool = True
            ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """A decorator that runs a function under the layouts that `tune` found for it.

    fast = applied("tuned_attention")(attention)

  The requests become `with_layout_constraint` at the equations that compute the same values as the
  configured instructions. The result is an ordinary JAX function: it can be differentiated,
  and be a part of others.

  Args:
    folder: the output folder of a finished `tune`.
    strict: whether to refuse requests at instructions that have no equation of their own. Otherwise
      they are left out, with a warning, and the function may be slower than what was measured.

  Raises:
    MissingDataError: the folder has no result, or an unfinished one.

  The function that is returned raises CompatibilityError where, if `strict`, an instruction with a
  request has no equation: the function or the shapes of its arguments are others, the instruction
  is in a loop or branch, or it is a reshape that JAX added to another operation.
  """
  path = pathlib.Path(folder)
  if not (path / _RESULT).is_file():
    raise errors.MissingDataError(
        f"no file {path / _RESULT}; expected the output folder of a finished `tune`")
  result = json_shapes.read(path / _RESULT, folder_lib.TUNED, "run the same `tune` again")
  if not result["finished"]:
    raise errors.MissingDataError(
        f"the search in {path} was interrupted; run the same `tune` again, which resumes, with "
        "fewer --measurements to end it with what was measured")
  data = folder_lib.read_program(path)
  requested = {node: layouts for node, layouts in zip(
      result["nodes"], configurations.from_text(result["best"]["layouts"])) if any(layouts)}
  if not result["is_faster"]:
    _log.info("%s: no layouts are faster than the default, so none are requested", path)
    requested = {}
  known = matching.values(data.module)
  listed = [instruction for computation in data.module.computations
            for instruction in computation.instructions]

  def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def tuned(*arguments: Any) -> Any:
      flat, tree = jax.tree.flatten(arguments)
      shapes: list[Any] = []

      def plain(*values: Any) -> list[Any]:
        results, structure = jax.tree.flatten(function(*jax.tree.unflatten(tree, values)))
        shapes[:] = [structure]
        return results

      traced = sites_lib.Traced(plain, flat)
      content = sites_lib.module_bytes(traced.lower({}))
      theirs, numbers = sites_lib.configurable(traced, content)
      values = matching.values(hlo_pb2.HloModuleProto.FromString(content))
      by_value = {value: number for site, number in zip(theirs, numbers)
                  for value in values.get(site.node, ())}
      requests = {}
      for node, layouts in requested.items():
        matched = [by_value[value] for value in known.get(node, ()) if value in by_value]
        if not matched and not strict:
          _log.warning("the layouts of %s are left out: no equation of the function computes it",
                       escaping.shown(listed[node].name))
        elif not matched:
          raise errors.CompatibilityError(
              f"layouts are requested for {escaping.quoted(listed[node].name)}, but no equation of "
              "the function computes the same value; expected the function and the shapes that "
              f"{path} was tuned for, and the instruction outside loops and branches; strict=False "
              "leaves such requests out, and tune.load loads the tuned program itself")
        requests.update(dict.fromkeys(matched, layouts))
      results = jax.jit(traced.under(requests))(*flat)
      return jax.tree.unflatten(shapes[0], results)

    return tuned

  return decorate
