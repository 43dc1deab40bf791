"""Find the sustained rate of any HTTP endpoint that already runs.

python examples/sustained_rate_of_url.py http://127.0.0.1:8080/predictions/model requests.jsonl
"""

import sys

import servetune


def main() -> None:
    """Measure the URL with the requests that are named on the command line."""
    url, requests = sys.argv[1:3]
    goal = servetune.Goal(timeout_s=5.0, width=0.1)
    found = servetune.find_sustained_rate(url, requests, goal)
    if found.lower_rps is None:
        sys.exit(f"no rate was sustained: {found.reason}")
    print(f"sustained {found.lower_rps:.1f} rps; {found.reason}")
    for probe in found.probes:
        print(f"  {probe.rate_rps:8.1f} rps: {probe.verdict.value}, {probe.reason}")
    for warning in found.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    main()
