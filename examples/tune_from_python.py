"""Tune a model from Python, with a progress callback.

python examples/tune_from_python.py study.yaml
"""

import sys

import servetune


def show(event: servetune.StudyEvent) -> None:
    """Print each finished trial."""
    if event.kind == "result":
        rate = event.data["sustained_rps"]
        result = f"{rate:.1f} rps" if rate else event.data["cause"]
        print(f"trial {event.data['number']} ({event.data['origin']}): {result}", flush=True)


def main() -> None:
    """Run the study of the file that is named on the command line."""
    spec = servetune.load_spec(sys.argv[1])
    outcome = servetune.tune(spec, on_event=show, handle_signals=True)
    if outcome.chosen is None:
        sys.exit("no configuration sustained any rate")
    print(f"best: {outcome.chosen.config.to_dict()}, {outcome.chosen.sustained_rps:.1f} rps")
    print(f"servetune export {outcome.run.folder}")


if __name__ == "__main__":
    main()
