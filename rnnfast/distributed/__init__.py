"""Data-parallel training on the ranks of MPI, imported where `ranks=` is given.

* `ranks.py`: `Ranks`, the processes that train one model together; `exchanges.py`: how they exchange arrays.
* `watchdog.py`: the end of all when one is lost. Common decisions are in `training/processes.py`.
"""
