"""niti's model descriptions as PyTorch modules, for the peers. Needs PyTorch 1.13 or later."""
import sys

import models
import torch

FIELDS = {
    "conv": {"out", "kernel", "stride", "padding", "groups", "bias"}, "linear": {"out", "bias"}, "norm": set(), "relu": {"max"},
    "maxpool": {"kernel", "stride", "padding"}, "avgpool": {"kernel", "stride", "padding"}, "global-avgpool": set(),
    "flatten": set(), "dropout": {"per", "rate"},
}


class FlattenLast(torch.nn.Module):
    """Flattens in the order of channels-last memory, which is niti's: no copy, and weights in the same order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


class FeatureDropout(torch.nn.Module):
    """niti's `per: feature`: the same values are 0 in every image of a batch."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return x * torch.nn.functional.dropout(torch.ones_like(x[:1]), self.rate)


class ClippedReLU(torch.nn.Hardtanh):
    """PyTorch 1.13 has no hardtanh of bf16 on the CPU; its clamp differs in the gradient at the ends alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and x.dtype == torch.bfloat16:
            return (torch.clamp_ if self.inplace else torch.clamp)(x, self.min_val, self.max_val)
        return super().forward(x)


class Residual(torch.nn.Module):
    """The sum of a body's output and a shortcut's; an empty shortcut is the input itself."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


class Builder:
    """Modules of layers in their order, which is also the order of models.nodes. A shape is of one image."""

    def __init__(self, model: dict, channels_last: bool, dropout_per: str | None) -> None:
        self.model, self.channels_last, self.dropout_per = model, channels_last, dropout_per

    def flatten(self) -> torch.nn.Module:
        return FlattenLast() if self.channels_last else torch.nn.Flatten()

    def dropout(self, fields: dict) -> torch.nn.Module:
        rate = fields.get("rate", 0.5)
        rate = float(rate[:-1]) / 100 if isinstance(rate, str) else rate
        return (torch.nn.Dropout if (self.dropout_per or fields.get("per", "feature")) == "element" else FeatureDropout)(rate)

    def window(self, kind: str, fields: dict, channels: int, out: int) -> torch.nn.Module:
        kernel, padding = models.pair(fields["kernel"]), models.pair(fields.get("padding", 0))
        stride = models.pair(fields.get("stride", 1 if kind == "conv" else fields["kernel"]))
        if kind == "conv":
            return torch.nn.Conv2d(channels, out, kernel, stride, padding, groups=models.groups(fields, channels),
                                   bias=fields.get("bias", False))
        return (torch.nn.MaxPool2d if kind == "maxpool" else torch.nn.AvgPool2d)(kernel, stride, padding)

    def layer(self, kind: str, fields: dict, channels: int, out: int, flat: bool, own: bool) -> torch.nn.Module:
        """own: nobody else reads the layer's input, which may then be overwritten."""
        unknown = {"name", *fields} - FIELDS.get(kind, set()) - {"name"}
        if kind not in FIELDS or unknown:
            what = f"field \"{sorted(unknown)[0]}\" of layer \"{kind}\"" if kind in FIELDS else f"layer \"{kind}\""
            sys.exit(f"model \"{self.model['name']}\": {what} is not known here")
        if kind in ("conv", "maxpool", "avgpool"):
            return self.window(kind, fields, channels, out)
        if kind == "linear":
            return torch.nn.Linear(channels, out, bias=fields.get("bias", False))
        if kind == "norm":
            return (torch.nn.BatchNorm1d if flat else torch.nn.BatchNorm2d)(channels, eps=1e-5, momentum=0.1)
        if kind == "relu":
            return ClippedReLU(0, float(fields["max"]), inplace=own) if "max" in fields else torch.nn.ReLU(inplace=own)
        if kind == "dropout":
            return self.dropout(fields)
        return torch.nn.AdaptiveAvgPool2d(1) if kind == "global-avgpool" else self.flatten()

    def chain(self, items: list, shape: tuple[int, int, int], flat: bool) -> tuple[torch.nn.Sequential, tuple[int, int, int], bool]:
        modules: list[torch.nn.Module] = []
        for kind, fields in items:
            if kind == "residual":
                body, after, flat_after = self.chain(fields["body"], shape, flat)
                shortcut, _, _ = self.chain(fields["shortcut"], shape, flat)
                modules.append(Residual(body, shortcut))
                shape, flat = after, flat_after
                continue
            if kind == "linear" and not flat:
                modules.append(self.flatten())
                flat = True
            after = models.shape_after(self.model, kind, fields, shape)
            if not (kind == "flatten" and flat):
                modules.append(self.layer(kind, fields, shape[2], after[2], flat, bool(modules)))
            shape, flat = after, flat or kind == "flatten"
        return torch.nn.Sequential(*modules), shape, flat


def build(model: dict, channels_last: bool = True, dropout_per: str | None = None) -> torch.nn.Sequential:
    """The network of a description, with PyTorch's own initial weights. dropout_per: replaces that of every dropout layer."""
    network, _, _ = Builder(model, channels_last, dropout_per).chain(models.layers(model), tuple(model["input"]), False)
    return network


def weighted(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The convolutions, linear layers and norms, in niti's order."""
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    return [module for module in network.modules() if isinstance(module, kinds)]


def products(network: torch.nn.Module) -> list[torch.nn.Module]:
    """The convolutions and linear layers, in niti's order."""
    return [module for module in network.modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
