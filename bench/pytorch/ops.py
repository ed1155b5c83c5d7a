"""Times single operators on 4x4 tensors, on request: ops.py [DEVICE]. Protocol: README.md."""
import json
import os
import platform
import sys
import time
import timeit
import traceback

import torch
import torch.nn.functional as F

# The statement is what a user writes, in the form that is quickest in Python where there are several.
STATEMENTS = {
    "add": "a + b",
    "add_grad": "g + b",
    "mul_scalar": "a * 2.5",
    "reshape": "a.reshape(2, 8)",
    "transpose": "a.transpose(0, 1)",
    "matmul": "torch.matmul(a, b)",
    "linear": "F.linear(a, w, v)",
    "layer_norm": "F.layer_norm(a, shape, v, u, 1e-6)",
    # Not documented, but without the Python function that torch.nn.functional wraps around it.
    "layer_norm_aten": "torch.layer_norm(a, shape, v, u, 1e-6)",
    "gelu": "F.gelu(a)",
    "softmax": "torch.softmax(a, -1)",
    "cat": "torch.cat((a, b))",
    "sum": "a.sum()",
    "empty_loop": "pass",
}


def make_timers(device: str) -> dict[str, timeit.Timer]:
    """timeit inlines the statement in `for _ in itertools.repeat(None, n)` and switches the collector off."""
    torch.manual_seed(0)
    values = {"torch": torch, "F": F, "shape": (4,),
              "a": torch.randn(4, 4, device=device), "b": torch.randn(4, 4, device=device),
              "g": torch.randn(4, 4, device=device, requires_grad=True), "w": torch.randn(4, 4, device=device),
              "v": torch.randn(4, device=device), "u": torch.randn(4, device=device)}
    # The setup runs inside the timed function, so this makes locals of them.
    setup = "; ".join(f"{name} = values['{name}']" for name in values)
    scope = {"values": values}
    return {op: timeit.Timer(statement, setup, globals=scope) for op, statement in STATEMENTS.items()}


def runtime() -> dict:
    """What a record of a measurement has to say about the PyTorch that was measured."""
    return {
        "torch": torch.__version__,
        "git": torch.version.git_version,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "mkl": torch.backends.mkl.is_available(),
        "mkldnn": torch.backends.mkldnn.is_available(),
        "openmp": torch.backends.openmp.is_available(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def serve(greeting: dict, answer):
    """Writes the greeting, then one JSON line for each JSON line that is read, until the input ends."""
    # Whatever else prints to standard output (a compiler, a warning) must not break the protocol.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps(greeting), file=out)
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=out)


def main():
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    torch.set_num_threads(1)
    timers = make_timers(device)
    # The device's work is part of what is timed. On a CPU there is none left to wait for.
    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize

    def answer(request: dict) -> dict:
        op, iterations = request["op"], request["iterations"]
        if op not in timers:
            raise ValueError(f"expected op to be one of {', '.join(timers)}, received {op}")
        wait()
        seconds = timers[op].timeit(iterations)
        start = time.perf_counter()
        wait()
        return {"op": op, "iterations": iterations, "seconds": seconds + time.perf_counter() - start}

    serve(runtime() | {"ops": STATEMENTS}, answer)


if __name__ == "__main__":
    main()
