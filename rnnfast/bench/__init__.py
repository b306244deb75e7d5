"""Benchmarks of `rnnfast bench`: layers and training steps against other libraries, on this machine.

* `grid.py` defines the problems, `machine.py` describes the machine.
* `contenders.py` lists the libraries and their interface. `own.py`, `torch_peer.py`, `jax_peer.py` and
  `onnx_peer.py` implement it for one library each, which is imported at its first use.
* `worker.py` measures in a separate process for each number of threads, with `timing.py`. `runner.py` starts
  the workers and collects their results.
* `ranks_runner.py` starts `ranks_worker.py` under MPI for each number of ranks. `ranks_results.py` and
  `ranks_report.py` summarize and show the results.
* `cluster.py` and `step_model.py` predict a training step on several ranks, `step_simulation.py` one on ranks
  of different speed, and `growth.py` the speed on more ranks than there are.
* `summary.py` aggregates the results, `report.py` shows them as text, `chart.py` as a picture, and
  `random_report.py` those of random shapes.
"""
