"""Layers only for readers of *Deep Learning from Scratch 2*, under the book's names in `rnnfast.time_layers`.

* `recurrent.py`: `RNN`, `LSTM`, `GRU`, for a time loop written by the caller.
* `simple.py`: the other layers of one step, their functions, and dropout from NumPy's global generator.
* `bi_lstm.py`, `binary_loss.py`: `TimeBiLSTM` and `TimeSigmoidWithLoss`.
"""
