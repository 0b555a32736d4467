"""A docker-registry of our own on loopback: started, filled, and read by its access log."""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import subprocess
import time
from urllib.parse import urlsplit

from .paths import CACHE, output

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

# Its data stays on disk (and so in the page cache), out of the memory that the stores
# on tmpfs are measured in. Uploads come from this machine only, hence no auth, no TLS.
SETTINGS = """\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {root}}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http:
  addr: 127.0.0.1:{port}
  relativeurls: true
"""
TLS = """\
  tls: {{certificate: {cert}, key: {key}}}
"""


def cached(image):
    """Has the layers' blobs in the page cache, so that no tool waits for the disk for another."""
    for layer in image["layers"]:
        digest = layer["digest"].removeprefix("sha256:")
        blob = CACHE / "registry/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
        with open(blob, "rb") as file:
            while file.read(1 << 22):
                pass


class Registry:
    """A running docker-registry; use it as a context manager."""

    def __init__(self, port, tls=False):
        """`tls` serves HTTP/2 as well, with a certificate of our own for 127.0.0.1."""
        self.port = port
        self.tls = tls
        self.address = f"127.0.0.1:{port}"
        self.log = CACHE / f"registry-{port}.log"

    def __enter__(self):
        root = CACHE / "registry"
        root.mkdir(parents=True, exist_ok=True)
        settings = CACHE / f"registry-{self.port}.yml"
        settings.write_text(SETTINGS.format(root=root, port=self.port) + self.encryption())
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", settings],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        for _ in range(100):
            if self.process.poll() is not None:
                raise SystemExit(f"docker-registry ended: see {self.log}")
            try:
                self.request("GET", "/v2/")
                return self
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"docker-registry does not answer on {self.address}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def encryption(self):
        """The settings for TLS, after making a key and a certificate."""
        if not self.tls:
            return ""
        key, cert = CACHE / "tls" / "key.pem", CACHE / "tls" / "ca.crt"
        key.parent.mkdir(exist_ok=True)
        output(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "30", "-subj", "/CN=rpull benches",
            "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert,
        )  # fmt: skip
        return TLS.format(cert=cert, key=key)

    def certificates(self, address):
        """A certs.d directory that has our certificate trusted at an address."""
        directory = CACHE / "tls" / "certs.d"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / address).mkdir(parents=True)
        shutil.copy(CACHE / "tls" / "ca.crt", directory / address)
        return directory

    def connect(self):
        """A connection to it."""
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        trust = ssl.create_default_context(cafile=CACHE / "tls" / "ca.crt")
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=600, context=trust)

    def request(self, method, url, body=None, headers=None, expect=(200, 201, 202)):
        """One request; returns its headers and body."""
        connection = self.connect()
        try:
            connection.request(method, url, body=body, headers=headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if expect and answer.status not in expect:
            raise SystemExit(f"{method} {url}: {answer.status} {content[:200]!r}")
        return answer, content

    def has(self, kind, name, reference):
        """Whether a manifest or blob is there already."""
        answer, _ = self.request(
            "HEAD", f"/v2/{name}/{kind}/{reference}", headers={"Accept": MANIFEST}, expect=None
        )
        return answer.status == 200

    def push_blob(self, name, digest, size, body):
        """Uploads one blob (bytes or an open file) in one go, unless it is there."""
        if self.has("blobs", name, digest):
            return
        answer, _ = self.request("POST", f"/v2/{name}/blobs/uploads/")
        place = urlsplit(answer.headers["Location"])
        query = f"{place.query}&digest={digest}" if place.query else f"digest={digest}"
        self.request(
            "PUT",
            f"{place.path}?{query}",
            body=body,
            headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
        )

    def push(self, image, directory):
        """Uploads an image that `Image.save` described, as NAME:latest."""
        for layer in image["layers"]:
            with open(directory / layer["file"], "rb") as body:
                self.push_blob(image["name"], layer["digest"], layer["size"], body)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [l["diff_id"] for l in image["layers"]]},
                "history": [{"created_by": l["file"]} for l in image["layers"]],
            }
        ).encode()
        self.push_blob(image["name"], sha256(config), len(config), config)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
                "layers": [
                    {"mediaType": LAYER, "digest": l["digest"], "size": l["size"]} for l in image["layers"]
                ],
            }
        ).encode()
        self.request("PUT", f"/v2/{image['name']}/manifests/latest", manifest, {"Content-Type": MANIFEST})

    def digest_of(self, name):
        """The digest that NAME:latest stands for."""
        answer, _ = self.request("HEAD", f"/v2/{name}/manifests/latest", headers={"Accept": MANIFEST})
        return answer.headers["Docker-Content-Digest"]

    def mark(self):
        """A place in the access log, for `requests_since`."""
        return self.log.stat().st_size

    def requests_since(self, mark):
        """The (method, path, status) of each request logged after a mark."""
        time.sleep(0.2)  # the registry writes a request's line after its answer
        with open(self.log, "rb") as log:
            log.seek(mark)
            text = log.read().decode("utf-8", "replace")
        return re.findall(r'"(GET|HEAD|POST|PUT) (\S+) HTTP/[0-9.]+" (\d+)', text)


def sha256(content):
    """The digest of some bytes, as the wire writes it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()
