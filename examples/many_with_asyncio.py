"""Twenty containers at once with asyncio, each fed and read, the slow ones given up on.

python examples/many_with_asyncio.py ROOTFS
"""

import asyncio
import sys

from boxship.errors import DeadlineExceeded
from boxship.libcontainer import aio


async def one(number: int, rootfs: str) -> str:
    script = f"[ {number} = 7 ] && sleep 100; read line; echo $line is {number}"
    try:
        result = await aio.run(["sh", "-c", script], rootfs, input=b"this\n", timeout=5 if number != 7 else 0.3)
    except DeadlineExceeded:
        return f"{number} took too long"
    return result.output.strip()


async def main(rootfs: str) -> None:
    for text in await asyncio.gather(*(one(number, rootfs) for number in range(20))):
        print(text)


asyncio.run(main(sys.argv[1]))
