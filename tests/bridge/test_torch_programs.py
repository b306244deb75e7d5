"""Programs around the bridge: reinforcement learning, workers, processes that train together."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_helpers import DOORS  # noqa: E402

import rnnfast.torch as bridge  # noqa: E402


def test_recurrent_policies_reset_in_the_kernels():
    policies = pytest.importorskip("sb3_contrib.common.recurrent.policies")
    process = policies.RecurrentActorCriticPolicy._process_sequence
    policy = type("Policy", (), {"_process_sequence": staticmethod(process)})()
    bridge.accelerate_policy(policy)
    torch.manual_seed(0)
    lstm, features = torch.nn.LSTM(3, 5), torch.randn(4 * 9, 3)
    states = (torch.randn(1, 4, 5), torch.randn(1, 4, 5))
    for share in (0.0, 0.3, 1.0):
        starts = (torch.rand(4 * 9) < share).float()
        found = []
        for one in (process, policy._process_sequence):
            out, final = one(features, states, starts, lstm)
            lstm.zero_grad()
            out.square().sum().backward()
            found.append([out, *final, *(param.grad.clone() for param in lstm.parameters())])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.filterwarnings("ignore")
def test_recurrent_ppo_learns_with_it():
    sb3 = pytest.importorskip("sb3_contrib")
    found = []
    for accelerated in (False, True):
        model = sb3.RecurrentPPO(
            "MlpLstmPolicy", "CartPole-v1", n_steps=32, n_epochs=2, batch_size=32, seed=0
        )
        if accelerated:
            bridge.accelerate_policy(model.policy)
        model.learn(96)
        found.append(torch.cat([param.detach().reshape(-1) for param in model.policy.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-2, atol=1e-3)


class Sequences(torch.utils.data.Dataset):
    """Each item goes through a recurrent layer in the worker."""

    def __init__(self, door):
        torch.manual_seed(0)
        self.door = door
        self.layer = (bridge.GRU if door == "classes" else torch.nn.GRU)(3, 64)
        if door == "accelerate":
            bridge.accelerate(self.layer)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad(), bridge.enable() if self.door == "enable" else contextlib.nullcontext():
            return self.layer(torch.full((50, 16, 3), float(index)))[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("door", DOORS)
def test_workers_of_a_data_loader(method, door):
    plain, data = Sequences("none"), Sequences(door)
    expected = torch.stack([plain[index] for index in range(4)])
    data[0]  # on several threads, before the fork
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context=method)
    (actual,) = loader
    torch.testing.assert_close(actual, expected)


DISTRIBUTED = """
import os, sys, torch, rnnfast.torch
from torch.nn.parallel import DistributedDataParallel
rank, file, door = int(sys.argv[1]), *sys.argv[2:]
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
layer = (rnnfast.torch if door == "classes" else torch.nn).LSTM(3, 8, 2, batch_first=True)
if door == "accelerate":
    rnnfast.torch.accelerate(layer)
model = DistributedDataParallel(layer)
x = torch.randn(4, 11, 3)[rank::2]
with rnnfast.torch.enable() if door == "enable" else torch.enable_grad():
    model(x)[0].square().sum().backward()
    assert bool(rnnfast.torch.report().served) == (door != "none")
print("sum", sum(p.grad.double().abs().sum().item() for p in model.parameters()))
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_together(tmp_path):
    found = {}
    for door in ("none", *DOORS):
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path / door), door],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        printed = [process.communicate(timeout=120)[0] for process in processes]
        found[door] = [float(one.split("sum ")[1]) for one in printed]
    expected = found.pop("none")
    assert expected[0] == expected[1]
    for actual in found.values():
        np.testing.assert_allclose(actual, expected, rtol=1e-4)
