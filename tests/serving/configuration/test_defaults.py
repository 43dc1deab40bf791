"""The defaults of TorchServe and torch."""

from serving.configuration.defaults import torchserve_defaults


def test_torchserve_defaults_have_threads_of_affinity_and_workers_of_quota() -> None:
    defaults = torchserve_defaults(cores=4, threads=96)
    assert (defaults["workers"], defaults["netty_threads"], defaults["mkl_threads"]) == (4, 8, 96)
