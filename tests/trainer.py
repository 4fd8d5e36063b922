"""A plain training script, as `mlflow-meta work` runs it in the tests; it knows nothing of us."""

import argparse
import math
import sys

import mlflow


def loss(model: str, lr: float, depth: int | None, units: int | None) -> float:
    """What is minimised: best at lr = 0.03, depth = 6, units = 64; the lowest value is 0.1."""
    bowl = 0.3 * (math.log10(lr) + 1.5) ** 2
    if model == "tree":
        return 0.15 + bowl + 0.02 * abs((depth or 0) - 6)
    return 0.10 + bowl + 0.1 * abs(math.log2(units or 1) - 6)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--units", type=int)
    parser.add_argument("--fail", action="store_true")
    args = parser.parse_args()
    print("training", args.model)
    with mlflow.start_run():
        for name, value in vars(args).items():
            if value is not None and name != "fail":
                mlflow.log_param(name, value)
        if args.fail:
            sys.exit(3)
        mlflow.log_metric("val_loss", loss(args.model, args.lr, args.depth, args.units))


if __name__ == "__main__":
    main()
