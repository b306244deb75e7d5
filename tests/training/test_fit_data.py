"""What `Trainer.fit` says of data that does not fit, before anything is trained."""

import numpy as np
import pytest

from rnnfast import CBOWLM, RNNLM, SequenceRegressor, Trainer, TruncatedBPTT
from rnnfast._check import CorpusError
from rnnfast.optim import SGD
from rnnfast.training import ExactBPTT

IDS = np.arange(60) % 7
XS = np.random.default_rng(0).standard_normal((5, 6, 3)).astype(np.float32)
TS, LAST = XS[..., :2] * 2, XS[:, -1, :2] * 2


def never(*given):
    raise AssertionError


def regressor(**options):
    return SequenceRegressor(3, 4, 2, rng=np.random.default_rng(0), **options)


def trained(model, data, bptt=None, **options):
    trainer = Trainer(model, SGD(lr=0.1), bptt or TruncatedBPTT(4), rng=np.random.default_rng(1))
    trainer.fit(data, **{"epochs": 2, "batch_size": 2, **options})
    return [param.tobytes() for param in model.params], trainer.history[-1]["valid_loss"]


@pytest.mark.parametrize("bptt", [TruncatedBPTT(4), ExactBPTT()])
def test_a_list_of_two_arrays_is_a_pair(bptt):
    expected = trained(regressor(), (XS, TS), bptt, valid=(XS, TS))
    assert trained(regressor(), [XS, TS], bptt, valid=[XS, TS]) == expected


def test_a_batch_larger_than_the_data_is_one_batch_of_all():
    actual, expected = (trained(regressor(), (XS, TS), valid=(XS, TS), batch_size=n) for n in (10**6, 5))
    assert actual == expected


def test_targets_of_the_last_step_may_be_validated_on_targets_of_each():
    assert trained(regressor(), (XS, LAST), valid=(XS[:2], TS[:2]))[1] > 0


PAIR = r"must be a pair of arrays \(sequences, targets\) for SequenceRegressor, got"
WRONG_PAIRS = {
    "text": (IDS, TypeError, rf"ids {PAIR} one ndarray"),
    "list of ids": (IDS.tolist(), TypeError, rf"ids {PAIR} one list"),
    "one array": (XS, TypeError, rf"ids {PAIR} one ndarray"),
    "nothing": (None, TypeError, rf"ids {PAIR} one NoneType"),
    "no arrays": ((), ValueError, r"sequences and targets must be a pair of arrays, got 0\."),
    "three arrays": ((XS, TS, TS), ValueError, r"sequences and targets must be a pair of arrays, got 3\."),
    "list of three": ([XS, TS, TS], ValueError, r"sequences and targets must be a pair of arrays, got 3\."),
    "lists": ((XS.tolist(), TS), TypeError, r"xs\[0\] must be a NumPy array, got list; pass "),
    "targets missing": ((XS, None), TypeError, r"ts must be a NumPy array, got NoneType\."),
    "masked": ((XS, np.ma.array(TS)), TypeError, "ts must be a plain NumPy array, got a masked array"),
    "matrix": ((XS, LAST.view(np.matrix)), TypeError, "ts must be a plain NumPy array, got a matrix"),
    "float64": ((XS.astype(float), TS), TypeError, "xs must be float32.*got float64; convert it with"),
    "float64 targets": ((XS, TS.astype(float)), TypeError, "ts must be float32.*got float64"),
    "integers": ((XS.astype(int), TS), TypeError, "xs must be float32"),
    "axes": ((XS[0], TS), ValueError, r"sequences and targets must be .* got \(6, 3\) and \(5, 6, 2\)"),
    "no sequence": ((XS[:0], TS[:0]), ValueError, r"at least one step is needed, got xs \(0, 6, 3\)"),
    "no step": ((XS[:, :0], TS[:, :0]), ValueError, r"at least one step is needed, got xs \(5, 0, 3\)"),
    "other number": ((XS, TS[:4]), ValueError, r"sequences and targets must be .*and \(4, 6, 2\)"),
    "other steps": ((XS, TS[:, :4]), ValueError, r"sequences and targets must be .*and \(5, 4, 2\)"),
    "input size": ((XS[..., :2], TS), ValueError, r"xs must be \(5, 6, 3\), got .*; .* input_size"),
    "output size": ((XS, TS[..., :1]), ValueError, r"ts must be \(5, 6, 2\), got .*; .* output_size"),
    "last output size": ((XS, LAST[..., :1]), ValueError, r"ts must be \(5, 2\), got .*; .* output_size"),
}


def check_refusal(model, data, error, message, **options):
    before = [param.copy() for param in model.params]
    trainer = Trainer(model, SGD(), TruncatedBPTT(4), callback=never, on_epoch=never, checkpoint=never)
    with pytest.raises(error, match=rf"^Trainer\.fit: {message}") as caught:
        trainer.fit(data, **{"epochs": 1, "batch_size": 2, **options})
    assert "\n" not in str(caught.value)
    for param, old in zip(model.params, before, strict=True):
        np.testing.assert_array_equal(param, old)


@pytest.mark.parametrize("case", WRONG_PAIRS)
def test_sequences_that_do_not_fit_are_refused_in_one_sentence(case, tmp_path):
    data, error, message = WRONG_PAIRS[case]
    check_refusal(regressor(), data, error, message, checkpoint_file=tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [case for case in WRONG_PAIRS if case != "nothing"])
def test_sequences_to_validate_on_that_do_not_fit_are_refused_before_an_epoch_is_trained(case):
    data, error, message = WRONG_PAIRS[case]
    message = message.replace("ids must", "valid must") if message.startswith("ids") else f"valid: {message}"
    check_refusal(regressor(), (XS, TS), error, message, valid=data)


@pytest.mark.parametrize("model", [RNNLM(7, 4, 4), CBOWLM(7, 4)])
def test_a_language_model_takes_a_text(model):
    kind = type(model).__name__
    for data, got in (((XS, TS), "a tuple of 2"), ([XS, TS], "a tuple of 2")):
        message = rf"must be token ids \(tokens,\) for {kind}, got {got}\."
        check_refusal(model, data, TypeError, f"ids {message}")
        check_refusal(model, IDS, TypeError, f"valid {message}", valid=data)
    for options in ({"valid": IDS[:1]}, {"valid": IDS[:0]}):
        check_refusal(model, IDS, CorpusError, "valid: the text is too short", **options)
    check_refusal(model, IDS, TypeError, "valid must be a NumPy array, got list", valid=IDS.tolist())
    check_refusal(model, IDS, ValueError, "resume=True belongs to a run with checkpoint_file", resume=True)
    check_refusal(model, IDS, TypeError, "resume must be True or False", resume="yes")


class Own:
    """A model of one's own that says nothing of its data, and cannot be validated."""

    def __init__(self):
        self.params, self.grads = [np.zeros(2)], [np.zeros(2)]

    def reset_state(self):
        """Nothing is carried."""

    def forward(self, xs, ts):
        return 1.0

    def backward(self):
        self.grads[0][...] = 1.0


def test_a_model_of_ones_own_takes_what_it_takes_and_is_validated_if_it_can_be():
    for data in (IDS, (XS.astype(float), LAST.astype(float))):
        model = Own()
        Trainer(model, SGD(lr=1.0), TruncatedBPTT(6)).fit(data, epochs=1, batch_size=2)
        assert model.params[0][0] < 0
    check_refusal(Own(), IDS, TypeError, "valid: the model must be an object like RNNLM", valid=IDS)
    message = "valid: the model must be an object like SequenceRegressor"
    check_refusal(Own(), (XS, TS), TypeError, message, valid=(XS, TS))
    check_refusal(
        Own(), (XS, TS), TypeError, "valid must be sequences with targets like ids, got a text", valid=IDS
    )
    check_refusal(
        Own(), IDS, TypeError, "valid must be a text like ids, got sequences with targets", valid=(XS, TS)
    )


def test_sequences_of_the_other_byte_order_or_layout_are_taken():
    expected = trained(regressor(), (XS, TS), valid=(XS, TS))
    swapped = XS.astype(">f4"), np.asfortranarray(TS)
    assert trained(regressor(), swapped, valid=swapped) == expected


def test_evaluation_refuses_in_the_same_words():
    with pytest.raises(ValueError, match=r"^SequenceRegressor\.evaluate: ts must be \(5, 6, 2\), got"):
        regressor().evaluate(XS, TS[..., :1])
    with pytest.raises(
        TypeError, match=r"^SequenceRegressor\.evaluate: xs\[0\] must be a NumPy array, got list"
    ):
        regressor().evaluate(XS.tolist(), TS)
