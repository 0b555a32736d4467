"""Lines that are worse than loopback: slow by connection, or long."""

import asyncio
import subprocess
import threading
import time
from contextlib import contextmanager

from .paths import CACHE

# Each connection gets `rate` bytes a second. `ranges` is what the registry is told of a
# client's Range header: nothing, when the server is to ignore it.
NGINX = """\
daemon off;
pid {place}/nginx.pid;
error_log {place}/error.log;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log {place}/access.log;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{registry};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      {ranges}
      proxy_max_temp_file_size 0;
      limit_rate {rate};
    }}
  }}
}}
"""
IGNORED = 'proxy_set_header Range ""; proxy_hide_header Accept-Ranges; max_ranges 0;'


@contextmanager
def slow(registry, port, rate, ranges=True):
    """nginx in front of the registry, each connection limited; yields its address."""
    place = CACHE / "nginx"
    place.mkdir(parents=True, exist_ok=True)
    settings = place / "nginx.conf"
    settings.write_text(
        NGINX.format(
            place=place, port=port, registry=registry.port, rate=rate,
            ranges="" if ranges else IGNORED,
        )
    )  # fmt: skip
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "nginx", "-e", place / "error.log", "-c", settings]
    )
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended: see {place}/error.log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


class Long:
    """A TCP relay that holds every byte for `delay` seconds each way.

    The handshake is this machine's own, so a connection's first byte waits one round trip
    more, as it would behind a SYN that travels.
    """

    def __init__(self, registry, delay):
        self.registry = registry
        self.delay = delay
        self.connections = 0

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self.relay, "127.0.0.1", 0))
        port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.address = f"127.0.0.1:{port}"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def relay(self, reader, writer):
        """One connection, both ways."""
        self.connections += 1
        await asyncio.sleep(2 * self.delay)
        there, back = await asyncio.open_connection("127.0.0.1", self.registry.port)
        await asyncio.gather(self.pipe(reader, back), self.pipe(there, writer))

    async def pipe(self, reader, writer):
        """Bytes of one direction, each as late as the line is long."""
        queue = asyncio.Queue(4096)

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - time.monotonic())
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        delivery = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(1 << 18):
                await queue.put((time.monotonic() + self.delay, data))
        except ConnectionError:
            pass
        await queue.put((time.monotonic() + self.delay, b""))
        await asyncio.gather(delivery, return_exceptions=True)
