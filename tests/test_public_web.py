"""Images that a data set names by addresses of the web: which machines are asked, and what a server may do.

A server on this machine stands for the web: its address counts as public where a test says so.

python -m pytest tests/test_public_web.py
"""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import photos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tipsv2.collections import public_web
from tipsv2.collections.columns import find_columns
from tipsv2.collections.pairs import Pairs, open_pairs
from tipsv2.collections.public_web import HOPS, fetch, is_public
from tipsv2.collections.sources import repository
from tipsv2.images import ImageError

HERE, OTHER = "127.0.0.1", "127.0.0.2"  # a machine of the web, and one that is nobody's business
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "100.63.255.255"]
HIDDEN = [
    *("127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    *("255.255.255.255", "::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::1", "2002:7f00:1::", "2001:0:53aa:64c:0:fbff:80ff:fffe", "::7f00:1", "2001:db8::1", "100::1"),
]


class Server:
    """answers: path -> (status, headers, body, or a function that writes to the socket); asked: every path and Host."""

    def __init__(self, address=HERE, port=0, context=None):
        self.answers, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append((self.path, self.headers["Host"].partition(":")[0]))
                answer = server.answers.get(self.path, (404, {}, b""))
                if callable(answer):
                    answer(self.wfile)
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:  # whoever asked has gone
                    pass

        self.http = ThreadingHTTPServer((address, port), Handler)
        if context is not None:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        self.url = f"{'https' if context else 'http'}://{address}:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve():
    """serve(address, port, context) -> a Server with /a.png."""
    servers = []

    def start(*given):
        servers.append(Server(*given))
        servers[-1].answers["/a.png"] = (200, {"Content-Type": "image/png"}, photos.encoded(7))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def names(monkeypatch):
    """names[host] = a list of answers, each a list of addresses; the last one stays. names.asked: hosts in order."""

    class Names(dict):
        asked = []

    known, resolve, found = Names(), socket.getaddrinfo, socket.getaddrinfo
    known.asked = []

    def answer(host, port, *args, **kwargs):
        host = host.decode() if isinstance(host, bytes) else host
        if host not in known:
            return resolve(host, port, *args, **kwargs)
        known.asked.append(host)
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [entry for address in addresses for entry in found(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return known


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", HIDDEN)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


def test_a_file_of_a_public_address(serve):
    server = serve()
    assert fetch(f"{server.url}/a.png", also=[HERE]) == photos.encoded(7)
    server.answers["/a%20b.png?x=%C3%A9"] = (200, {}, b"there")
    assert fetch(f"{server.url}/a b.png?x=é", also=[HERE]) == b"there"
    with pytest.raises(OSError, match=f"{HERE} answers with status 404"):
        fetch(f"{server.url}/none.png", also=[HERE])
    with pytest.raises(OSError, match="there is no host nowhere.invalid"):
        fetch("http://nowhere.invalid/a.png")
    server.close()
    with pytest.raises(OSError, match="refused"):
        fetch(f"{server.url}/a.png", also=[HERE])


@pytest.mark.parametrize("host", [HERE, "localhost", "127.1", "0x7f000001", "2130706433", "0.0.0.0", "[::ffff:7f00:1]"])
def test_this_machine_is_not_asked_however_it_is_written(serve, host):
    server = serve()
    with pytest.raises(ValueError, match="which is not a public address"):
        fetch(f"http://{host}:{server.port}/a.png")
    assert not server.asked


@pytest.mark.parametrize(
    "address", ["ftp://h/a", "file:///etc/passwd", "http:///a", "http://", "a.png", "http://[/", ""]
)
def test_other_addresses_are_refused(address):
    with pytest.raises((ValueError, OSError)) as error:
        fetch(address)
    assert str(error.value)


def test_every_redirect_is_checked(serve):
    server, secret = serve(), serve(OTHER)
    for number in range(HOPS + 1):
        server.answers[f"/{number}"] = (302, {"location": f"/{number + 1}"}, b"")
    server.answers[f"/{HOPS}"] = (308, {"Location": f"{server.url}/a.png"}, b"")
    assert fetch(f"{server.url}/1", also=[HERE]) == photos.encoded(7)
    server.answers[f"/{HOPS}"] = (301, {"Location": "/0"}, b"")
    with pytest.raises(ValueError, match=f"redirected more than {HOPS} times"):
        fetch(f"{server.url}/0", also=[HERE])
    server.answers["/away"] = (302, {"Location": f"{secret.url}/a.png"}, b"")
    with pytest.raises(ValueError, match=f"{OTHER} is at {OTHER}, which is not a public address"):
        fetch(f"{server.url}/away", also=[HERE])
    for place in ("file:///etc/passwd", "ftp://example.org/a.png"):
        server.answers["/away"] = (302, {"Location": place}, b"")
        with pytest.raises(ValueError, match="is no address of the web"):
            fetch(f"{server.url}/away", also=[HERE])
    assert not secret.asked


def test_a_name_is_resolved_once_and_its_address_is_the_one_that_was_checked(serve, names):
    server = serve()
    secret = serve(OTHER, server.port)
    secret.answers["/a.png"] = (200, {}, b"secret")
    names["rebinding.example"] = [[HERE], [OTHER]]
    address = f"http://rebinding.example:{server.port}/a.png"
    assert fetch(address, also=[HERE]) == photos.encoded(7)
    assert names.asked == ["rebinding.example"] and server.asked == [("/a.png", "rebinding.example")]
    with pytest.raises(ValueError, match=f"rebinding.example is at {OTHER}"):
        fetch(address, also=[HERE])
    names["both.example"] = [[HERE, OTHER]]
    with pytest.raises(ValueError, match=f"both.example is at {OTHER}"):
        fetch(address.replace("rebinding", "both"), also=[HERE])
    names["second.example"] = [["127.0.0.3", HERE]]  # nobody listens at the first
    assert fetch(address.replace("rebinding", "second"), also=[HERE, "127.0.0.3"]) == photos.encoded(7)
    assert not secret.asked


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_certificate_must_be_of_the_name_and_not_of_the_address(serve, names, tmp_path):
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 -subj /CN=pictures.example -addext".split()
    command = ["openssl", "req", "-x509", *kind, "subjectAltName=DNS:pictures.example", *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = serve(HERE, 0, context)
    names["pictures.example"] = names["other.example"] = [[HERE]]
    with pytest.raises(OSError, match="(?i)certificate verify failed"):
        fetch(f"https://pictures.example:{server.port}/a.png", also=[HERE])
    public_web._certificates().load_verify_locations(tmp_path / "cert.pem")
    try:
        assert fetch(f"https://pictures.example:{server.port}/a.png", also=[HERE]) == photos.encoded(7)
        with pytest.raises(OSError, match="(?i)certificate verify failed"):
            fetch(f"https://other.example:{server.port}/a.png", also=[HERE])
    finally:
        public_web._certificates.cache_clear()


def test_what_is_too_large_is_not_read_to_its_end(serve):
    server, written = serve(), []

    def endless(out):
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            written.append(out.write(b"x" * 100_000))

    server.answers["/big"] = endless
    with pytest.raises(ValueError, match="it has more than 1 MB"):
        fetch(f"{server.url}/big", also=[HERE], most_bytes=1_000_000)
    assert sum(filter(None, written)) < 50_000_000


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_a_server_that_dribbles_holds_up_nobody(serve, start):
    """In its headers and in its body: every byte comes in time, all of them do not."""
    server = serve()

    def dribble(out):
        out.write(start)
        for _ in range(100):
            out.write(b"a")
            out.flush()
            time.sleep(0.1)

    server.answers["/slow"] = dribble
    began = time.monotonic()
    with pytest.raises((ValueError, OSError), match="longer than 0.6 seconds|timed out"):
        fetch(f"{server.url}/slow", also=[HERE], seconds=0.6)
    assert time.monotonic() - began < 5


# In data sets


def rows(url):
    return {"URL": [f"{url}/{i}" for i in (1, 2)], "TEXT": ["picture number 1", "picture number 2"], "n": ["a.x", "b"]}


def test_addresses_in_a_data_set_of_the_hub(serve, tmp_path, monkeypatch):
    server = serve()
    for i in (1, 2):
        server.answers[f"/{i}"] = (200, {}, photos.encoded(i))
    (tmp_path / "repo").mkdir()
    pq.write_table(pa.table(rows(server.url)), tmp_path / "repo" / "train.parquet")
    pairs = Pairs(repository(str(tmp_path / "repo")), {}, captions=True)
    assert pairs.mapping == {"image": "URL", "web": "TEXT"} and "fetched from the web (column URL)" in pairs.notes[-1]
    with pytest.raises(ImageError) as error:
        next(iter(pairs)).open()
    assert str(error.value) == (
        f"{server.url}/1: it cannot be fetched ({HERE} is at {HERE}, which is not a public address: such files are not "
        "fetched)."
    )
    assert not server.asked
    monkeypatch.setattr(public_web, "fetch", partial(fetch, also=[HERE]))
    found = [(photos.number_of(pair.open()), pair.captions["web"]) for pair in pairs]
    assert found == [(i, (f"picture number {i}",)) for i in (1, 2)]
    server.answers["/1"] = (200, {}, b"<html>")
    with pytest.raises(ImageError, match=f"^{server.url}/1: it is not a picture"):
        next(iter(pairs)).open()


def test_addresses_in_an_own_table_but_not_in_a_strangers(serve, tmp_path, monkeypatch):
    server = serve()
    monkeypatch.setattr(public_web, "fetch", partial(fetch, also=[HERE]))
    lines = [{"image": address, "caption": "picture number 7"} for address in (f"{server.url}/a.png", "own.png")]
    (tmp_path / "own.png").write_bytes(photos.encoded(7))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [photos.number_of(pair.open()) for pair in open_pairs(tmp_path / "t.jsonl")] == [7, 7]
    server.asked.clear()
    stranger, own = open_pairs(tmp_path / "t.jsonl", confined=True)
    assert photos.number_of(own.open()) == 7
    with pytest.raises(ImageError, match="it names no file in the folder of these data, and no other file is read"):
        stranger.open()
    assert not server.asked


def test_a_file_beside_an_address_is_the_image():
    link = "https://example.org/a?id=3"
    for seen, image in (
        ({"url": link, "licence": "https://example.org/by.png"}, "url"),
        ({"url": link, "photo": "a.png"}, "photo"),
        ({"url": link, "input.jpg": b"x"}, "input.jpg"),
        ({"image": link, "url": link}, "image"),
        ({"licence": "https://example.org/by.png"}, "licence"),
    ):
        assert find_columns("t", seen, {}, captions=False) == {"image": image}
    with pytest.raises(ValueError, match="no column of images"):
        find_columns("t", {"homepage": link}, {}, captions=False)
