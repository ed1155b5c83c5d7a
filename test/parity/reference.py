"""What PyTorch computes, for the parity tests: reference.py <task> <in.safetensors> <out.safetensors> [json].

Names in the tensor files: parameters are weights.KEY, their gradients grad.KEY. Each task says the rest.
"""
import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "pytorch"))
import model as gmml  # noqa: E402


def weights_of(tensors: dict) -> dict:
    prefix = "weights."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def gradients_of(module: nn.Module) -> dict:
    return {f"grad.{name}": parameter.grad for name, parameter in module.named_parameters()
            if parameter.grad is not None}


def vit_forward(tensors: dict, config: dict) -> dict:
    """`image` -> `tokens` [B, 1 + N, D] and `reconstruction_input` [B, N, D]."""
    vit = gmml.build_backbone(config)
    vit.load_state_dict(weights_of(tensors))
    layers = config["model"].get("layers") or gmml.default_layers(len(vit.blocks))
    image = tensors["image"]
    with torch.no_grad():
        return {"tokens": vit(image), "reconstruction_input": vit.forward_mean(image, layers)}


def gmml_step(tensors: dict, config: dict) -> dict:
    """`corrupted`, `clean`, `mask` -> `loss`, `prediction` and every gradient.

    With "autocast" ("bfloat16") in the configuration, in that region.
    """
    model = gmml.build_model(config)
    model.load_state_dict(weights_of(tensors))
    with autocast(config):
        prediction = model(tensors["corrupted"])
        loss = gmml.masked_l1(prediction, tensors["clean"], tensors["mask"])
    loss.backward()
    return {"loss": loss, "prediction": prediction} | gradients_of(model)


def adamw_steps(tensors: dict, config: dict) -> dict:
    """One AdamW step for each entry of lr and weight_decay.

    With a model in the configuration, gradients are those of the GMML loss on `corrupted`, `clean`, `mask`;
    without, they are given as grad.STEP.KEY, STEP from 0. Each step returns step.STEP.param.KEY and likewise
    exp_avg, exp_avg_sq, and the norms before clipping: step.STEP.norm, or step.STEP.norm.KEY where each
    tensor is clipped by itself (the default).
    """
    if "model" in config:
        model = gmml.build_model(config)
        model.load_state_dict(weights_of(tensors))
        named = dict(model.named_parameters())
    else:
        model = None
        named = {name: nn.Parameter(tensor) for name, tensor in weights_of(tensors).items()}
    options = {key: config[key] for key in ("betas", "eps", "fused") if key in config}
    optimizer = torch.optim.AdamW(gmml.decay_groups(named.items(), 0.0), lr=0.0, **options)
    out = {}
    for step, (lr, weight_decay) in enumerate(zip(config["lr"], config["weight_decay"], strict=True)):
        if model:
            loss = gmml.masked_l1(model(tensors["corrupted"]), tensors["clean"], tensors["mask"])
            loss.backward()
            out[f"step.{step}.loss"] = loss
        else:
            for name, parameter in named.items():
                parameter.grad = tensors[f"grad.{step}.{name}"].clone()
        if config.get("clip") and config.get("clip_mode", "tensor") == "global":
            out[f"step.{step}.norm"] = nn.utils.clip_grad_norm_(named.values(), config["clip"])
        elif config.get("clip"):
            for name, parameter in named.items():
                out[f"step.{step}.norm.{name}"] = nn.utils.clip_grad_norm_(parameter, config["clip"])
        for group, decay in zip(optimizer.param_groups, (weight_decay, 0.0)):
            group["lr"], group["weight_decay"] = lr, decay
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in named.items():
            state = optimizer.state[parameter]
            # Clones, because the next step changes them in place.
            out[f"step.{step}.param.{name}"] = parameter.detach().clone()
            out[f"step.{step}.exp_avg.{name}"] = state["exp_avg"].clone()
            out[f"step.{step}.exp_avg_sq.{name}"] = state["exp_avg_sq"].clone()
    return out


def sgd_steps(tensors: dict, config: dict) -> dict:
    """Steps of SGD, a group for each entry of `groups` ({names, and SGD's options}).

    Gradients are grad.STEP.KEY for STEP from 0 to steps - 1; where one is missing, there is none in that step.
    Each step returns step.STEP.param.KEY and, where there is a momentum, step.STEP.momentum.KEY.
    """
    named = {name: nn.Parameter(tensor) for name, tensor in weights_of(tensors).items()}
    groups = [{key: value for key, value in group.items() if key != "names"} |
              {"params": [named[name] for name in group["names"]]} for group in config["groups"]]
    optimizer = torch.optim.SGD(groups)
    out = {}
    for step in range(config["steps"]):
        for name, parameter in named.items():
            gradient = tensors.get(f"grad.{step}.{name}")
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()
        for name, parameter in named.items():
            out[f"step.{step}.param.{name}"] = parameter.detach().clone()
            if parameter in optimizer.state:
                out[f"step.{step}.momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"].clone()
    return out


def quadratic(parameters: list, tensors: dict) -> torch.Tensor:
    x = torch.cat([parameter.reshape(-1) for parameter in parameters])
    return x @ tensors["matrix"] @ x / 2 - tensors["vector"] @ x


def rosenbrock(parameters: list, tensors: dict) -> torch.Tensor:
    x = torch.cat([parameter.reshape(-1) for parameter in parameters])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def logistic(parameters: list, tensors: dict) -> torch.Tensor:
    weight, bias = parameters
    loss = nn.functional.cross_entropy(tensors["x"] @ weight.T + bias, tensors["y"])
    return loss + 0.005 * (weight * weight).sum()


def waves(parameters: list, tensors: dict) -> torch.Tensor:
    x = torch.cat([parameter.reshape(-1) for parameter in parameters])
    return (0.1 * x ** 2 + torch.sin(3 * x) + torch.exp(-((x - 1) ** 2) * 20)).sum()


PROBLEMS = {problem.__name__: problem for problem in (quadratic, rosenbrock, logistic, waves)}


def lbfgs(tensors: dict, config: dict) -> dict:
    """`steps` steps of L-BFGS with `options` on a problem from weights.0, weights.1, ...

    -> `trace`, the parameters at each evaluation in a row; `losses`, what the steps return; `calls`, the
    evaluations before the end of each step; weights.K, the last parameters.
    """
    parameters = [nn.Parameter(tensor) for _, tensor in sorted(weights_of(tensors).items())]
    optimizer = torch.optim.LBFGS(parameters, **config["options"])
    trace, losses, calls = [], [], []

    def closure():
        trace.append(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        optimizer.zero_grad()
        loss = PROBLEMS[config["problem"]](parameters, tensors)
        loss.backward()
        return loss

    for _ in range(config["steps"]):
        losses.append(optimizer.step(closure).detach())
        calls.append(len(trace))
    return {"trace": torch.stack(trace), "losses": torch.stack(losses), "calls": torch.tensor(calls)} | {
        f"weights.{number}": parameter.detach() for number, parameter in enumerate(parameters)}


def autocast(config: dict):
    dtype = config.get("autocast")
    return torch.autocast("cpu", getattr(torch, dtype or "bfloat16"), enabled=dtype is not None)


def grad_scaler(tensors: dict, config: dict) -> dict:
    """Training steps with torch.amp.GradScaler: unscale, clip (if `clip`), step, update.

    Scaled gradients are grad.STEP.KEY for STEP from 0 to steps - 1; `state` is loaded into the scaler first.
    Each step returns step.STEP.scale, step.STEP.growth_tracker and step.STEP.param.KEY.
    """
    named = {name: nn.Parameter(tensor) for name, tensor in weights_of(tensors).items()}
    optimizer = torch.optim.AdamW(named.values(), lr=config["lr"], weight_decay=config["weight_decay"])
    scaler = torch.amp.GradScaler("cpu")
    scaler.load_state_dict(scaler.state_dict() | config["state"])
    scaler.scale(torch.zeros(()))  # makes its tensors
    out = {}
    for step in range(config["steps"]):
        for name, parameter in named.items():
            parameter.grad = tensors[f"grad.{step}.{name}"].clone()
        scaler.unscale_(optimizer)
        if config.get("clip"):
            nn.utils.clip_grad_norm_(named.values(), config["clip"])
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        out[f"step.{step}.scale"] = as_tensor(state["scale"])
        out[f"step.{step}.growth_tracker"] = as_tensor(state["_growth_tracker"])
        out |= {f"step.{step}.param.{name}": parameter.detach().clone() for name, parameter in named.items()}
    return out


def module(tensors: dict, config: dict) -> dict:
    """A module of torch.nn, or of our model (Attention, Mlp, Block, ...), made with args and kwargs.

    `input`, `grad_output` (cos(arange) where absent) -> `output`, `grad.input`, grad.KEY.
    """
    name = config["module"]
    kind = getattr(gmml if hasattr(gmml, name) else nn, name)
    made = kind(*config.get("args", []), **config.get("kwargs", {}))
    made.load_state_dict(weights_of(tensors))
    given = tensors["input"].requires_grad_()
    output = made(given)
    output.backward(tensors["grad_output"] if "grad_output" in tensors else probe(output))
    return {"output": output, "grad.input": given.grad} | gradients_of(made)


def ops(tensors: dict, config: list) -> dict:
    """Evaluates [{fn, args, kwargs, grad}], each on fresh copies of the tensors.

    fn is a dotted name under torch ("torch.cat", "torch.Tensor.add_"). In args and kwargs, "$x" is the tensor
    x, "torch.float64" that object, and "int:9007199254740993" that number. Results are out.K for the K-th
    entry, out.K.I for a tuple; what is neither tensor nor number is left out. For each name in grad,
    out.K.grad.NAME is the gradient of sum(output * cos(arange)), so that it differs between elements.
    """
    out = {}
    for number, entry in enumerate(config):
        leaves = {name: tensors[name].clone().requires_grad_() for name in entry.get("grad", [])}
        # Operators that work in place may not have a leaf, hence the clone.
        copies = {name: leaves.get(name, tensor).clone() for name, tensor in tensors.items()}
        args, kwargs = fill(entry.get("args", []), copies), fill(entry.get("kwargs", {}), copies)
        try:
            result = resolve(entry["fn"])(*args, **kwargs)
        except Exception as error:
            raise RuntimeError(f"entry {number}, {entry['fn']}") from error
        several = isinstance(result, (tuple, list))
        outputs = {f"out.{number}.{index}" if several else f"out.{number}": as_tensor(value)
                   for index, value in enumerate(result if several else [result])
                   if isinstance(value, (torch.Tensor, bool, int, float))}
        out |= outputs
        if leaves:
            total = sum((output * probe(output)).sum() for output in outputs.values() if output.requires_grad)
            for name, gradient in zip(leaves, torch.autograd.grad(total, list(leaves.values()))):
                out[f"out.{number}.grad.{name}"] = gradient
    return out


def as_tensor(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else torch.as_tensor(value)


def probe(output: torch.Tensor) -> torch.Tensor:
    """An output gradient that differs between elements."""
    return torch.arange(output.numel(), dtype=torch.float32).cos().to(output.dtype).reshape(output.shape)


def resolve(dotted: str):
    first, *rest = dotted.split(".")
    if first != "torch":
        raise ValueError(f"expected a name under torch, received {dotted}")
    found = torch
    for part in rest:
        found = getattr(found, part)
    return found


def fill(value, tensors: dict):
    """The value with tensors and torch objects in place of their names, also inside lists and objects."""
    if isinstance(value, list):
        return [fill(item, tensors) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, tensors) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        return tensors[value[1:]]
    if isinstance(value, str) and value.startswith("torch."):
        return resolve(value)
    if isinstance(value, str) and value.startswith("int:"):
        return int(value[4:])
    return value


def ema(tensors: dict, config: dict) -> dict:
    """Running means of weights.KEY, whose values after step K are step.K.KEY: mean.K.KEY after each."""
    holder = nn.ParameterDict(weights_of(tensors))
    averaged = torch.optim.swa_utils.AveragedModel(
        holder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config["decay"]))
    averaged.update_parameters(holder)  # the first call copies
    out = {}
    for step in range(config["steps"]):
        with torch.no_grad():
            for name, parameter in holder.items():
                parameter.copy_(tensors[f"step.{step}.{name}"])
        averaged.update_parameters(holder)
        out |= {f"mean.{step}.{name}": mean.detach().clone() for name, mean in averaged.module.items()}
    return out


def many(tensors: dict, config: list) -> dict:
    """Several tasks, [{task, config}], in one process: the K-th has the tensors K/NAME and gives K/NAME."""
    out = {}
    for number, entry in enumerate(config):
        prefix = f"{number}/"
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        torch.manual_seed(0)
        results = TASKS[entry["task"]](own, entry.get("config", {}))
        out |= {prefix + name: tensor for name, tensor in results.items()}
    return out


TASKS = {task.__name__: task for task in (
    vit_forward, gmml_step, adamw_steps, sgd_steps, lbfgs, grad_scaler, module, ops, ema, many)}


def main():
    parser = argparse.ArgumentParser(description="Writes what PyTorch computes for a parity test.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("config", nargs="?", type=json.loads, default={})
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    results = TASKS[options.task](gmml.load_tensors(options.input), options.config)
    gmml.save_tensors(results, options.output)


if __name__ == "__main__":
    main()
