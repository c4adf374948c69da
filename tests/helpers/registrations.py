"""Registrations that a test makes, undone at its end."""

from collections.abc import Iterator
import contextlib
import sys

from tpugraphs_rank import plugins
from tpugraphs_rank import registries

ALL = (registries.MODELS, registries.LOSSES, registries.VALIDATION_METRICS, registries.POOLINGS,
       registries.CANDIDATES)


@contextlib.contextmanager
def undone() -> Iterator[None]:
  """Unregisters what the block registers, and unloads the plugins that it loads."""
  names = [registry.names() for registry in ALL]
  loaded = set(plugins._loaded)
  try:
    yield
  finally:
    for registry, kept in zip(ALL, names):
      for name in set(registry.names()) - set(kept):
        registry.unregister(name)
    for file in set(plugins._loaded) - loaded:
      module = plugins._loaded.pop(file)
      for name in [name for name, value in sys.modules.items() if value is module]:
        del sys.modules[name]
