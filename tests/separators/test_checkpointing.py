"""Gradient checkpointing: less is kept, and not a number changes, in gradients, running statistics or dropout."""

import pytest
import torch

from tasnet_attn.separators import LTL, DualPath, Hourglass, SamsNet

SEPARATORS = {
    "SamsNet": (SamsNet, {"channels": 4, "n_modules": 2, "slices": 3}),
    "LTL": (LTL, {"hidden": 8, "heads": 2, "ffn": 16, "lstm_after": 1, "dropout": 0.3}),
    "Hourglass": (Hourglass, {"n_stacks": 2, "n_poolings": 2, "channels": 4, "stem": (4, 4), "batch_norm": True}),
    "DualPath": (DualPath, {"width": 8, "n_blocks": 2}),
}


@pytest.mark.parametrize(("make", "settings"), SEPARATORS.values(), ids=SEPARATORS)
def test_keeps_less_and_changes_nothing(make, settings):
    x, results = torch.rand(1, 33, 36), []
    for on in (False, True):
        torch.manual_seed(0)
        separator, kept = make(33, 1, **settings, gradient_checkpointing=on), {}
        weights = {parameter.data_ptr() for parameter in separator.parameters()}

        def keep(tensor, kept=kept, weights=weights):
            if tensor.data_ptr() not in weights:
                kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = separator(x)[-1]
        kept = sum(kept.values())
        output.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in separator.named_parameters()}
        results.append((kept, output, gradients, separator.state_dict()))
    (whole, *plain), (less, *again) = results
    assert less < whole / 2
    torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert not separator(x)[0].requires_grad
