"""What judging costs: `python -m benchmarks.inspection` prints a table of medians and ratios.

Runs that are compared are interleaved; every answer is checked.
"""
