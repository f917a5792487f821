"""A websocket echo server on a free port of the loopback, with permessage-deflate; prints the port, runs until killed."""

import asyncio
import logging

import websockets

logging.getLogger("websockets").setLevel(logging.CRITICAL)  # most cases break the protocol on purpose


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
