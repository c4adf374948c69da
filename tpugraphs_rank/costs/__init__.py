"""Analytic costs of configurations, from the program and a few facts about the hardware.

  targets            facts about the hardware that a collection was measured on
"""
