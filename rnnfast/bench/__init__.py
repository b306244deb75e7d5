"""The measurements of `rnnfast bench`: layers of rnnfast beside those of other libraries, on this machine.

* `contenders.py` has the problems, and prepares each for every library, which is imported at its first use.
* `measure.py` compares the results, then times them with `timing.py`, line by line.
"""
