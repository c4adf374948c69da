"""Analytic costs of configurations, from the program and a few facts about the hardware.

  layout_assignment  copies and loops that requested layouts cause
  layout_flow        how a requested layout travels through a program
  layout_loops       the loops into which a compiler fuses elementwise operations
  layout_orders      orders of axes in memory, as numbers
  tile_cost          nanoseconds of a tiled kernel's configurations, as a sum of 13 terms
  tile_geometry      which ranges of every array a step of a tiled kernel touches
  targets            facts about the hardware that a collection was measured on
"""
