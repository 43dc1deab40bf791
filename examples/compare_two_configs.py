"""Compare two config.properties of the same model, interleaved, in fresh servers.

python examples/compare_two_configs.py study.yaml today.properties candidate.properties
"""

import sys
from statistics import median

import servetune


def main() -> None:
    """Measure both files in two rounds, and print the ratio of their rates."""
    spec = servetune.load_spec(sys.argv[1])
    files = sys.argv[2:4]
    configs = [servetune.read_config(file, spec.model.archive) for file in files]
    rounds = servetune.measure(spec, configs, rounds=2)
    for index, file in enumerate(files):
        rates = ", ".join(f"{rate:.1f}" for rate in rounds.rates(index))
        print(f"{file}: {rates} rps")
    ratios = rounds.ratios(1)
    if not ratios:
        sys.exit("one of the configurations sustained no rate")
    print(f"{files[1]} ÷ {files[0]}: {median(ratios):.2f}")


if __name__ == "__main__":
    main()
