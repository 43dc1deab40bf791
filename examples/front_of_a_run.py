"""Draw the front of a run: the configurations that no other one beats in both rate and latency.

python examples/front_of_a_run.py runs/NAME
"""

import sys
from pathlib import Path

import plotly.express as px

import servetune


def main() -> None:
    """Print the front, and write it with all trials to front.html."""
    run = servetune.Run.open(Path(sys.argv[1]))
    trials = run.dataframe("trials").dropna(subset=["sustained_rps", "p99_s"])
    # From the highest rate down, each trial with a lower latency than all before it.
    ordered = trials.sort_values(["sustained_rps", "p99_s"], ascending=[False, True])
    front = ordered[ordered["p99_s"] < ordered["p99_s"].cummin().shift(fill_value=float("inf"))]
    print(front[["sustained_rps", "p99_s"]].to_string(float_format="%.3f"))
    figure = px.scatter(trials, x="sustained_rps", y="p99_s", hover_name=trials.index)
    figure.add_scatter(x=front["sustained_rps"], y=front["p99_s"], name="front")
    figure.write_html("front.html")


if __name__ == "__main__":
    main()
