"""The real timm and lambda-networks: what they compute, for `golden.json`, and how far ours is from it.

    python tests/interop/interop_peers.py golden                      # writes golden.json; needs both packages
    python tests/interop/interop_peers.py compare lambda_resnet26t    # timm's network against ours
    python tests/interop/interop_peers.py layers                      # timm's layer against ours

timm needs a torchvision that fits torch. Where that is not at hand, its missing operators are declared, which is enough
for networks (a process of its own, as other packages then take torchvision for whole).

Weights and inputs are a formula of names and indices, so that no generator of random numbers has a part in them.
"""

import functools
import hashlib
import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

GOLDEN = Path(__file__).with_name("golden.json")
NETWORKS = ("lambda_resnet26t", "lambda_resnet26rpt_256", "lambda_resnet50ts")
SHOWN = 8  # outputs that golden.json has of each
OPERATORS = []  # declared ones, as long as they live
# Options of a layer, and the shape of its input
TIMM_LAYERS = {
    "local": ({"dim": 12, "num_heads": 3, "dim_head": 5, "r": 3}, (2, 12, 6, 5)),
    "global": ({"dim": 8, "num_heads": 2, "dim_head": 4, "r": None, "feat_size": (4, 7)}, (2, 8, 4, 7)),
    "biased": ({"dim": 8, "num_heads": 4, "dim_head": 3, "r": 5, "qkv_bias": True}, (3, 8, 4, 4)),
}
LAMBDA_NETWORKS_LAYERS = {
    "local": ({"dim": 12, "dim_k": 5, "r": 3, "heads": 3}, (2, 12, 6, 5)),
    "local intra": ({"dim": 6, "dim_k": 4, "r": 5, "heads": 2, "dim_u": 3, "dim_out": 8}, (2, 6, 4, 7)),
    "global": ({"dim": 8, "dim_k": 4, "n": 5, "heads": 2}, (2, 8, 5, 5)),
    "global intra": ({"dim": 6, "dim_k": 3, "n": 4, "heads": 4, "dim_u": 2, "dim_out": 12}, (3, 6, 4, 4)),
}


def uniform(name, shape):
    """Numbers from −½ to ½ that follow from a name."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:4], 16)
    waves = torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * 12.9898 + seed)
    return ((waves * 43758.5453) % 1 - 0.5).reshape(shape)


def weight(name, tensor):
    if name.endswith("num_batches_tracked"):
        return torch.full_like(tensor, 7)
    numbers = uniform(name, tensor.shape)
    if tensor.ndim == 1:
        # Norms that halve their input: in evaluation mode nothing else keeps deep networks from growing
        plus = {"weight": 0.5, "running_var": 1.0}.get(name.rpartition(".")[2], 0.0)
        numbers = plus + numbers / 2
    elif name.endswith(("pos_emb", "conv_lambda.weight", "pos_conv.weight", "rel_pos_emb")):
        numbers = numbers / 2
    else:
        numbers = numbers * (24 / tensor[0].numel()) ** 0.5
    return numbers.to(tensor.dtype)


def formula(weights):
    """The formula's weights of these names, shapes and dtypes."""
    return {name: weight(name, tensor) for name, tensor in weights.items()}


def picture(shape):
    return 4 * uniform("picture", shape)


def signature(weights):
    """A hash of names and shapes."""
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in weights.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def shape_of(name):
    return (2, 3, 64, 64) if "rpt" in name else (2, 3, 96, 64)


@functools.cache
def import_timm():
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # its operators do not fit this torch
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        OPERATORS.append(library)
    import timm

    return timm


def timm_network(name, **options):
    return import_timm().create_model(name, **options)


def timm_layer(**options):
    import_timm()
    from timm.layers.lambda_layer import LambdaLayer

    return LambdaLayer(**options)


def lambda_networks_layer(**options):
    from lambda_networks import LambdaLayer

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        return LambdaLayer(**options)


def shown(y):
    flat = y.detach().flatten()
    return [flat[index].item() for index in torch.linspace(0, len(flat) - 1, SHOWN).long()]


def outputs(layer, shape):
    """Some outputs of a layer of formula weights in float64, in evaluation and in training mode."""
    layer = layer.double()
    layer.load_state_dict(formula(layer.state_dict()))
    x = picture(shape)
    return {mode: shown(layer.train(mode == "train")(x)) for mode in ("eval", "train")}


def write_golden():
    golden = {"versions": {name: version(name) for name in ("timm", "lambda-networks", "torch")}, "networks": {}}
    for name in NETWORKS:
        network = timm_network(name)
        entry = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "signature": signature(network.state_dict()),
        }
        shape = shape_of(name)
        if "rpt" in name:
            network = timm_network(name, img_size=shape[-1])
        with torch.no_grad():
            entry["outputs"] = outputs(network, shape)
        golden["networks"][name] = entry
    golden["timm"] = {name: outputs(timm_layer(**options), shape) for name, (options, shape) in TIMM_LAYERS.items()}
    golden["lambda_networks"] = {
        name: outputs(lambda_networks_layer(**options), shape)
        for name, (options, shape) in LAMBDA_NETWORKS_LAYERS.items()
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


def random_statistics(network):
    """Norms away from their start, so that nothing is hidden by ones and zeros."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 1.5, 3)
    return network


def distance(ours, theirs):
    """Greatest difference, as a part of the greatest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def compare(name, folder):
    """Relative differences between timm's network and ours, by what was compared."""
    from safetensors.torch import save_file

    from lambda_seq import create_model
    from lambda_seq.interop import timm as interop

    torch.manual_seed(0)
    found = {}
    theirs = random_statistics(timm_network(name)).eval()
    save_file(theirs.state_dict(), folder / "weights.safetensors")
    ours = interop.load(folder / "weights.safetensors")
    assert ours.name == name
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    with torch.no_grad():
        for size in [(256, 256)] + ([] if "rpt" in name else [(224, 320), (64, 128)]):
            x = torch.randn(2, 3, *size)
            found[f"float32 {size}"] = distance(ours(x), theirs(x))
        other = {"num_classes": 7, "img_size": (192, 256)} if "rpt" in name else {"num_classes": 7}
        theirs = random_statistics(timm_network(name, in_chans=1, **other)).double().eval()
        torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, folder / "weights.pth")
        ours = interop.load(folder / "weights.pth").double()
        interop.load(folder / "weights.pth", ours)  # those of the file were rounded to float32
        x = torch.randn(3, 1, 192, 256).double()
        found["float64"] = distance(ours(x), theirs(x))
        found["float64 features"] = distance(ours.features(x), theirs.forward_features(x))
        found["float64 training"] = distance(ours.train()(x), theirs.train()(x))
    x = torch.randn(3, 1, 192, 256).double()
    for network in (ours, theirs):
        network.zero_grad()
        network(x).square().sum().backward()
    grads = interop.convert_state_dict(theirs.state_dict() | {n: p.grad for n, p in theirs.named_parameters()})
    for parameter, values in ((p, grads[n]) for n, p in ours.named_parameters()):
        found["float64 gradients"] = max(found.get("float64 gradients", 0), distance(parameter.grad, values))
    for statistic, values in theirs.state_dict().items():
        if "running" in statistic:
            mine = interop.export_state_dict(ours)[statistic]
            found["float64 statistics"] = max(found.get("float64 statistics", 0), distance(mine, values))
    ours = random_statistics(create_model(name, num_classes=5, zero_init_last=False)).eval()
    theirs = timm_network(name, num_classes=5).eval()
    theirs.load_state_dict(interop.export_state_dict(ours))
    with torch.no_grad():
        x = torch.randn(1, 3, 256, 256)
        found["exported"] = distance(ours(x), theirs(x))
    return found


def compare_layers(interop, make, cases):
    """Relative differences between the layers of a package and ours, both ways, by case."""
    torch.manual_seed(0)
    found = {}
    for name, (options, shape) in cases.items():
        theirs = random_statistics(make(**options))
        ours = interop.convert_layer(theirs)
        back = interop.export_layer(ours)
        assert ours.training
        with torch.no_grad():
            for mode in ("train", "eval"):
                x = torch.randn(shape)
                expected = theirs.train(mode == "train")(x)
                found[f"{name} {mode}"] = distance(ours.train(mode == "train")(x), expected)
                found[f"{name} {mode} exported"] = distance(back.train(mode == "train")(x), expected)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        write_golden()
    elif sys.argv[1] == "layers":
        from lambda_seq.interop import timm as interop

        print(json.dumps(compare_layers(interop, timm_layer, TIMM_LAYERS)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(compare(sys.argv[2], Path(folder))))
