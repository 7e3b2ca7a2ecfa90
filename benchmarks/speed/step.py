"""Measure what makes a training step faster: `python benchmarks/speed/step.py`.

Times training steps of the shipped model's network on random crops, on the device that training
would use: unchanged, with channels last, in bfloat16, and compiled. The variants take turns within
one run. Prints median milliseconds per face and the ratio to the unchanged step.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir

from fkp.runs import command_line, config

# As the entry scripts do, before torch is imported.
command_line.tune_threads_and_malloc()

import torch  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"

# Steps that are not timed.
WARM_UP = 2

# channels_last, bfloat16, compiled
VARIANTS = {
    "plain": (False, False, False),
    "channels_last": (True, False, False),
    "half": (False, True, False),
    "channels_last_half": (True, True, False),
}


def make_step(batch: int, channels_last: bool, half: bool, compiled: bool) -> Callable[[], None]:
    """Make a function that runs one training step of experiment=shipped on random data."""
    overrides = [
        "experiment=shipped",
        f"model.channels_last={channels_last}",
        f"+model.compile={compiled}",
        "run_dir=unused",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = config.build(cfg.model).to(device).train()
    optimizer = module.optimizer(module.network.parameters())

    size = cfg.transforms.random_crop.size
    images = torch.rand(batch, 1, size, size, device=device)
    points = size * torch.rand(batch, 68, 2, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            output = module.network(images)
        loss = module.loss(module.codec.coordinates(output), module.codec.encode(points))
        (loss + module.nll_weight * module.codec.nll(output, points).mean()).backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 5.0)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    """Time the variants in turn and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    options = parser.parse_args()

    compiled = {"channels_last_half_compiled": (True, True, True)} if options.compile else {}
    variants = VARIANTS | compiled
    steps = {name: make_step(options.batch, *variant) for name, variant in variants.items()}

    times = defaultdict(list)
    for number in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - began) / options.batch)

    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:28}{value:7.2f} ms per face   x {value / medians['plain']:.2f}")
    metrics = {f"{name}_ms": value for name, value in medians.items()}
    metrics |= {f"{name}_over_plain": value / medians["plain"] for name, value in medians.items()}
    print(json.dumps({name: round(value, 3) for name, value in metrics.items()}))


if __name__ == "__main__":
    main()
