"""late.py PORT TARGET MS - a way to TARGET on this machine whose answers come MS late, in their order. PORT accepts any number of connections."""
import asyncio
import sys

PORT, TARGET, LATE = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000


async def hand_on(reader, writer, late):
    """Each piece as long after it came, so that a second one does not wait for the first."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue()

    async def write():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    out = asyncio.create_task(write())
    try:
        while data := await reader.read(65536):
            queue.put_nowait((loop.time() + late, data))
    except ConnectionError:
        pass
    queue.put_nowait((loop.time(), b""))
    await asyncio.gather(out, return_exceptions=True)


async def accepted(reader, writer):
    try:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", TARGET)
    except OSError:
        writer.close()
        return
    await asyncio.gather(hand_on(reader, there_writer, 0), hand_on(there_reader, writer, LATE))


async def main():
    async with await asyncio.start_server(accepted, "127.0.0.1", PORT) as server:
        await server.serve_forever()


asyncio.run(main())
