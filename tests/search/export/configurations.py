"""Random configurations, as a search may find them."""

from __future__ import annotations

import random

from serving.configuration.config import ServerConfig

_PROPERTIES = {
    "prefer_direct_buffer": ("true", "false"),
    "max_request_size": ("655350", "65535000"),
    "default_response_timeout": ("60", "300"),
    "install_py_dep_per_model": ("true",),
    "cpu_launcher_enable": ("true",),
    "cpu_launcher_args": ("--use_logical_core --ncore_per_instance 2",),
    "decode_input_request": ("false",),
    "enable_metrics_api": ("true", "false"),
}
_VARIABLES = {
    "OMP_WAIT_POLICY": ("PASSIVE", "ACTIVE"),
    "KMP_BLOCKTIME": ("1",),
    "KMP_AFFINITY": ("granularity=fine,compact,1,0",),
    "MODEL_NOTE": (
        'it\'s "quoted" $HOME \\ back',
        "a b\tc",
        "ünïcode",
        "#no comment",
        "%n 100%",
        "$(PATH) $$(X) `id`",
        "it's `id` $(A)",
    ),
    "LD_PRELOAD": ("/usr/lib/libjemalloc.so:/usr/lib/libiomp5.so",),
}
_JVM = {
    "-Xmx": ("1g", "512m"),
    "-XX:ParallelGCThreads": ("2",),
    "-XX:+UseParallelGC": ("",),
    "--add-opens=java.base/java.lang": ("ALL-UNNAMED",),
}


def random_config(seed: int) -> ServerConfig:
    """Return a configuration in which each setting is given or left to its default."""
    source = random.Random(seed)

    def some(number: int) -> int | None:
        return source.choice([None, source.randint(1, number), source.randint(1, number)])

    def entries(options: dict[str, tuple[str, ...]]) -> dict[str, str]:
        chosen = source.sample(sorted(options), source.randint(0, len(options)))
        return {name: source.choice(options[name]) for name in chosen}

    return ServerConfig(
        workers=some(64),
        batch_size=some(256),
        max_batch_delay_ms=some(2000),
        netty_threads=some(32),
        netty_client_threads=some(32),
        mkl_threads=some(16),
        job_queue_size=some(10_000),
        response_timeout_s=some(600),
        properties=entries(_PROPERTIES),
        environment=entries(_VARIABLES),
        jvm=entries(_JVM),
    )
