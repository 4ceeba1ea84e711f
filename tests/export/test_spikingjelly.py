from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import spikestill as ss
from spikestill.graph import SpikingNetwork
from tests.graph import networks

functional = pytest.importorskip("spikingjelly.activation_based.functional")
layer = pytest.importorskip("spikingjelly.activation_based.layer")
neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")

NEURONS = {
    "LIF, soft": ss.LIF(0.5, 0.15, "soft"),
    "LIF, hard": ss.LIF(0.75, 0.15, "hard", detach_reset=False),
    "IF, soft": ss.IF(0.2, "soft", surrogate=ss.ATan(2.0)),
    "IF, hard": ss.IF(0.2, "hard", surrogate=ss.Triangle(1.0)),
}


def spikes_of(net: nn.Module, images: Tensor, timesteps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Read-outs ``[T, B, K]`` and spikes of a SpikingJelly network in single-step mode."""
    found: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_hook(lambda _, __, spikes, path=path: found.setdefault(path, []).append(spikes))
        for path, module in net.named_modules()
        if isinstance(module, neuron.BaseNode)
    ]
    functional.reset_net(net)
    with torch.no_grad():
        steps = torch.stack([net(images) for _ in range(timesteps)])
    for handle in handles:
        handle.remove()
    return steps, {path: torch.stack(spikes) for path, spikes in found.items()}


def assert_same_spikes(snn: SpikingNetwork, net: nn.Module, images: Tensor) -> None:
    ours: dict[str, Tensor] = {}
    with torch.no_grad():
        steps = snn.unroll(images, observe=lambda path, spikes: ours.__setitem__(path, spikes.clone()))
    their_steps, theirs = spikes_of(net, images, snn.timesteps)
    assert ours.keys() == theirs.keys()
    for path, spikes in ours.items():
        assert 0.01 < spikes.mean() < 0.99
        assert torch.equal(spikes, theirs[path]), path
    torch.testing.assert_close(steps, their_steps)


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("name", ["plain", "normalised", "residual", "dense", "average pooling", "max pooling"])
def test_a_network_goes_over_and_comes_back_with_the_same_spikes(name: str, kind: str) -> None:
    snn = networks.spiking(name, NEURONS[kind]).eval()
    images = torch.rand(4, *networks.SHAPE)
    net = ss.to_spikingjelly(snn)
    assert_same_spikes(snn, net, images)
    back = ss.from_spikingjelly(net, networks.SHAPE, timesteps=4)
    assert_same_spikes(back, net, images)
    for (path, before), (_, after) in zip(snn.neurons(), back.neurons(), strict=True):
        assert before.rule == after.rule, path
        assert before.threshold == after.threshold
        torch.testing.assert_close(before.leak, after.leak, rtol=1e-6, atol=0)


class Block(nn.Module):
    """A residual block as SpikingJelly's users write it."""

    def __init__(self, channels: int, node: nn.Module) -> None:
        super().__init__()
        self.conv1 = layer.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.sn1 = layer.BatchNorm2d(channels), node
        self.conv2 = layer.SeqToANNContainer(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.sn2 = neuron.IFNode(v_threshold=0.5, v_reset=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.sn2(self.conv2(self.sn1(self.bn1(self.conv1(x)))) + x)


def theirs(node: nn.Module, *more: nn.Module) -> nn.Sequential:
    net = nn.Sequential(
        layer.Conv2d(3, 4, 3, padding=1),
        layer.BatchNorm2d(4),
        neuron.LIFNode(tau=2.0, v_threshold=0.3, v_reset=None, decay_input=True),
        Block(4, node),
        layer.Dropout(0.3),
        layer.AdaptiveAvgPool2d(1),
        layer.Flatten(),
        layer.Linear(4, 5),
        *more,
    )
    return net.eval()


def single_step(net: nn.Module) -> nn.Module:
    """Its containers only run many steps at once; the judge takes them as what they hold."""
    for module in net.modules():
        if isinstance(module, layer.SeqToANNContainer):
            module.__class__ = nn.Sequential
    return net


@pytest.mark.parametrize("reset", [None, 0.0])
@pytest.mark.parametrize("tau", [1.25, 2.0, 4.0])
def test_a_residual_network_of_theirs_gives_the_same_spikes_here(tau: float, reset: float | None) -> None:
    net = theirs(neuron.LIFNode(tau=tau, v_threshold=0.25, v_reset=reset, decay_input=False))
    snn = ss.from_spikingjelly(net, networks.SHAPE, timesteps=5, encoder=ss.Direct())
    assert_same_spikes(snn, single_step(net), torch.rand(3, *networks.SHAPE) * 2)
    assert [path for path, _ in snn.neurons()] == ["2", "3.sn1", "3.sn2"]
    assert [n.rule.reset for _, n in snn.neurons()] == ["soft", "soft" if reset is None else "hard", "soft"]


def test_the_network_itself_stays_as_it_is_and_forgets_nothing() -> None:
    net = single_step(theirs(neuron.IFNode(v_threshold=0.25)))
    with torch.no_grad():
        net(torch.rand(1, *networks.SHAPE))
    before = net[2].v.clone()
    ss.from_spikingjelly(net, networks.SHAPE, encoder=ss.Poisson())
    assert torch.equal(net[2].v, before)
    assert isinstance(net[0], layer.Conv2d)


def test_a_network_that_came_over_can_be_trained() -> None:
    snn = ss.from_spikingjelly(theirs(neuron.IFNode(v_threshold=0.25)).train(), networks.SHAPE)
    snn(torch.rand(2, *networks.SHAPE)).sum().backward()
    assert all(item.grad is not None for item in snn.parameters())


def refused(net: nn.Module, match: str) -> None:
    with pytest.raises(ss.InputError, match=match) as caught:
        ss.from_spikingjelly(net, networks.SHAPE)
    assert "\n" not in str(caught.value)


def test_what_has_no_equivalent_here_is_refused_by_name() -> None:
    refused(theirs(neuron.ParametricLIFNode()), "'3.sn1' is a ParametricLIFNode of SpikingJelly")
    refused(theirs(neuron.IFNode(v_reset=-0.5)), "'3.sn1' resets to -0.5: only 0")
    refused(theirs(neuron.IFNode(v_threshold=0.0)), "'3.sn1': threshold must be positive")
    refused(theirs(neuron.IFNode(surrogate_function=surrogate.Erf())), "'3.sn1' has the surrogate gradient Erf")
    refused(theirs(nn.ReLU()), "'3.sn1' is a ReLU, which does not spike")
    refused(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), "Sequential has no neurons of SpikingJelly")
    soft = surrogate.Sigmoid(spiking=False)
    refused(theirs(neuron.IFNode(surrogate_function=soft)), "'3.sn1' gives no spikes")


class OverTime(nn.Module):
    """Handles time itself, as many networks of SpikingJelly do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), neuron.IFNode(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(0)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.node = nn.Conv2d(3, 3, 3, padding=1), neuron.IFNode()

    def forward(self, x: Tensor) -> Tensor:
        return self.node(self.conv(self.node(self.conv(x)))).flatten(1)


def test_a_forward_pass_that_is_not_one_step_is_refused() -> None:
    refused(OverTime().eval(), "does not keep one entry an image on the first axis, which time steps share with images")
    refused(Twice().eval(), "'node_2' is a function, or a neuron's second call")


def test_what_spikingjelly_lacks_is_refused_by_name() -> None:
    later = networks.spiking("plain", ss.LIF(order="leak-then-subtract"))
    with pytest.raises(ss.InputError, match="'2' has the order leak-then-subtract"):
        ss.to_spikingjelly(later)
    linear = networks.spiking("plain", ss.LIF(surrogate=ss.Linear()))
    with pytest.raises(ss.InputError, match="'2' has the surrogate gradient Linear, which SpikingJelly lacks"):
        ss.to_spikingjelly(linear)
    started = networks.spiking("plain")
    dict(started.neurons())["2"].set_initial(0.1)
    with pytest.raises(ss.InputError, match="'2' starts from a potential of its own"):
        ss.to_spikingjelly(started)
