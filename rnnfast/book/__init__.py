"""What only readers of *Deep Learning from Scratch 2* need, under the book's names in `rnnfast.time_layers`.

* `recurrent.py`: `RNN`, `LSTM`, `GRU`, whose loop over time the caller writes; `one_step.py` is their base.
* `simple.py`: the other layers of one step, the functions beside them, dropout from NumPy's global generator.
* `bi_lstm.py`, `binary_loss.py`: `TimeBiLSTM` and `TimeSigmoidWithLoss`.
"""
