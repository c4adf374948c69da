"""Analytic costs of configurations, from the program and a few facts about the hardware.

  tile_cost          nanoseconds of a tiled kernel's configurations, as a sum of 13 terms
  tile_geometry      which ranges of every array a step of a tiled kernel touches
  targets            facts about the hardware that a collection was measured on
"""
