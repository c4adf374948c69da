"""The layout collector: programs compiled and timed under many requested layouts; see ../README.md.
"""
