"""What `rnnfast bench` measures: the layers and training steps beside other libraries, on this machine.

* `grid.py` says what is measured, `machine.py` on what.
* `contenders.py` lists the libraries that can be beside rnnfast and says what each has to offer; `own.py`,
  `torch_peer.py`, `jax_peer.py` and `onnx_peer.py` are one each, and import theirs only when they are used.
* `worker.py` measures, in a process of its own for each number of threads, with `timing.py`; `runner.py`
  starts the workers and collects.
* `summary.py` counts together, `report.py` shows it as text, `chart.py` as a picture.
"""
