"""A TCP relay that holds every byte for a while: `relay.py ADDRESS PORT TARGET_PORT DELAY_S`.

It forwards to the loopback, each way with that delay, in order.
"""

from __future__ import annotations

import asyncio
import sys


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Forward one way until its end."""
    loop = asyncio.get_running_loop()

    def forward(data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data) if data else writer.close()

    while data := await reader.read(1 << 16):
        loop.call_later(delay_s, forward, data)
    loop.call_later(delay_s, forward, b"")


async def main(address: str, port: int, target: int, delay_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pass_on(reader, back, delay_s), pass_on(there, writer, delay_s))

    server = await asyncio.start_server(connected, address, port)
    print("relays", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
