"""A TCP relay that delays every byte: `relay.py ADDRESS PORT TARGET_PORT DELAY_S`.

It forwards to the loopback, with the delay in both directions.
"""

from __future__ import annotations

import asyncio
import sys


async def forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Forward one direction of a connection until its end."""
    loop = asyncio.get_running_loop()

    def write(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data) if data else writer.close()

    while data := await reader.read(1 << 16):
        loop.call_later(delay_s, write, data)
    loop.call_later(delay_s, write, b"")


async def main(address: str, port: int, target_port: int, delay_s: float) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(
            forward(reader, target_writer, delay_s), forward(target_reader, writer, delay_s)
        )

    server = await asyncio.start_server(relay, address, port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
