"""What makes a training step quicker: `python benchmarks/speed/step.py`.

Steps of the shipped model's network on random crops, on the device that training would take: as it is, with channels
last, in half precision (bf16), compiled; in turn, within one run. Prints medians in ms a face and their ratios.

    --rounds 15     --batch 30     --compile     (needs a compiler)
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

command_line.tune_threads_and_malloc()  # as the scripts do, before torch comes

import torch  # noqa: E402

CONF = Path(__file__).parents[2] / "conf"


def stepper(batch: int, channels_last: bool, half: bool, compiled: bool) -> Callable[[], None]:
    """One training step of experiment=shipped, without its data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        told = [
            "experiment=shipped",
            f"model.channels_last={channels_last}",
            f"+model.compile={compiled}",
        ]
        cfg = compose("train", [*told, "run_dir=unused"])
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = config.build(cfg.model).to(device).train()
    size = cfg.transforms.random_crop.size
    images, points = (
        torch.rand(batch, 1, size, size, device=device),
        size * torch.rand(batch, 68, 2, device=device),
    )
    optimizer = module.optimizer(module.network.parameters())

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
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=30)
    parser.add_argument("--compile", action="store_true")
    told = parser.parse_args()
    ways = {
        "plain": (False, False, False),
        "channels_last": (True, False, False),
        "half": (False, True, False),
        "channels_last_half": (True, True, False),
    }
    if told.compile:
        ways["channels_last_half_compiled"] = (True, True, True)
    steps = {name: stepper(told.batch, *way) for name, way in ways.items()}
    times = defaultdict(list)
    for number in range(2 + told.rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= 2:
                times[name].append(1000 * (time.perf_counter() - began) / told.batch)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:28}{value:7.2f} ms a face   x {value / medians['plain']:.2f}")
    figures = {f"{name}_ms": value for name, value in medians.items()}
    figures |= {f"{name}_over_plain": value / medians["plain"] for name, value in medians.items()}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
