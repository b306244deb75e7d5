"""The measurements of `rnnfast bench`: layers of rnnfast beside those of other libraries, on this machine.

* `grid.py` has the problems: cells, shapes, and their values.
* `contenders.py` prepares a problem for each library, which is imported at its first use.
* `measure.py` compares the results, then times them with `timing.py`, line by line.
"""
