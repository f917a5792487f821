"""Publishes with asyncssh what the JSON argument says, prints what the server prints, runs until killed."""

import asyncio
import json
import sys

import asyncssh

said = json.loads(sys.argv[1])


async def main():
    connecting = asyncssh.connect(
        said["host"], said["port"], username=said["user"], client_keys=[said["key"]],
        known_hosts=None, config=None, agent_path=None,
    )
    async with connecting as connection:
        for forward in said["forwards"]:
            await connection.forward_remote_port(
                forward["address"], forward["port"], "127.0.0.1", forward["target"]
            )
        if said["command"] is None:
            await connection.wait_closed()
            return 0
        process = await connection.create_process(said["command"], stderr=asyncssh.STDOUT)
        async for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
        return (await process.wait()).exit_status


sys.exit(asyncio.run(main()))
