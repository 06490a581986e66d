"""%maven of the Java kernel: proxies and mirrors from the environment and from settings.xml."""

import http.server
import os
import socket
import sys
import threading

import harness
import launch
import pytest

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>
<dependencies>{dependencies}</dependencies></project>"""
DEPENDENCY = """<dependency><groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version>
<scope>{3}</scope></dependency>"""
# The smallest zip there is: a jar without a class.
EMPTY_JAR = b"PK\x05\x06" + bytes(18)


@pytest.fixture(scope="module")
def started():
    try:
        return launch.launch("java")
    except launch.Missing as reason:
        print(f"SKIP: no driver of java: {reason}", file=sys.__stderr__, flush=True)
        pytest.skip(str(reason))


class Repository:
    """A Maven repository of our own, that also answers as a proxy does; it keeps what was asked."""

    def __init__(self):
        self.files = {}
        self.asked = []
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path
                repository.asked.append(path)
                body = repository.files.get(
                    "/" + path.split("://")[-1].split("/", 1)[-1]
                )
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, group, artifact, version, *dependencies):
        base = "/".join(
            ("", *group.split("."), artifact, version, f"{artifact}-{version}")
        )
        text = "".join(DEPENDENCY.format(*one) for one in dependencies)
        pom = POM.format(
            group=group, artifact=artifact, version=version, dependencies=text
        )
        self.files[base + ".pom"] = pom.encode()
        self.files[base + ".jar"] = EMPTY_JAR

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def repository():
    made = Repository()
    made.add(
        "test.crow",
        "nest",
        "1.0",
        ("test.crow", "twig", "2.0", "compile"),
        ("test.crow", "egg", "3.0", "test"),
    )
    made.add("test.crow", "twig", "2.0", ("test.crow", "leaf", "1.0", "runtime"))
    made.add("test.crow", "leaf", "1.0")
    yield made
    made.close()


@pytest.fixture
def driver(started, tmp_path):
    peers = []

    def start(**env):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        peer = harness.Driver(
            argv=started.argv, env={"HOME": str(home), **env}, cwd=tmp_path
        )
        peers.append(peer)
        return peer.start(tmp_path, {"HOME": str(home), **env})

    yield start
    for peer in peers:
        peer.close()


ADDED = "added test.crow:nest:1.0, test.crow:twig:2.0, test.crow:leaf:1.0\n"


def test_a_mirror_from_the_environment(driver, repository, tmp_path):
    peer = driver(MAVEN_MIRROR_URL=repository.url)
    run = peer.run("%maven test.crow:nest:1.0")
    assert (run.out, run.err, run.error) == (ADDED, "", None)
    paths = peer.run("%classpath").out.split()
    assert len(paths) == 3
    assert all(path.startswith(str(tmp_path / "home/.m2/repository")) for path in paths)
    # What is there is not added again, and not asked for again.
    asked = len(repository.asked)
    assert peer.run("%dependency test.crow:twig:2.0").out == "nothing to add\n"
    assert len(repository.asked) == asked


def test_a_mirror_from_the_settings(driver, repository, tmp_path):
    settings = tmp_path / "home/.m2/settings.xml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f"<settings><localRepository>{tmp_path}/elsewhere</localRepository><mirrors><mirror><id>own</id>"
        f"<mirrorOf>central</mirrorOf><url>{repository.url}</url></mirror></mirrors></settings>"
    )
    peer = driver()
    assert peer.run("%maven test.crow:nest:1.0").out == ADDED
    assert str(tmp_path / "elsewhere") in peer.run("%classpath").out


def test_a_repository_of_the_cells(driver, repository):
    peer = driver()
    run = peer.run(f"%mavenRepo own {repository.url}\n%maven test.crow:leaf:1.0")
    assert run.out == "added test.crow:leaf:1.0\n"


def test_the_proxy_of_the_environment(driver, repository, tmp_path):
    """A host that only the proxy knows."""
    # A distribution's Maven may refuse repositories without TLS; by name, that is put right here.
    settings = tmp_path / "home/.m2/settings.xml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        "<settings><mirrors><mirror><id>maven-default-http-blocker</id><mirrorOf>none</mirrorOf>"
        f"<url>{repository.url}</url></mirror></mirrors></settings>"
    )
    # Ours answers by the part of the path behind the host.
    repository.files.update(
        {"/maven" + path: body for path, body in list(repository.files.items())}
    )
    peer = driver(
        HTTP_PROXY=repository.url, HTTPS_PROXY=repository.url, NO_PROXY="localhost"
    )
    run = peer.run(
        "%mavenRepo own http://repository.invalid/maven\n%maven test.crow:leaf:1.0"
    )
    assert run.out == "added test.crow:leaf:1.0\n", run.error
    assert any(
        path.startswith("http://repository.invalid/maven/") for path in repository.asked
    )


def test_cells_go_through_the_proxy_of_the_environment(driver, repository):
    repository.files["/hello"] = b"from the proxy"
    peer = driver(HTTP_PROXY=repository.url, NO_PROXY="direct.invalid,.corp")
    code = (
        "import java.net.http.*;\n"
        'HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create("http://some.invalid/hello")).build(),'
        " HttpResponse.BodyHandlers.ofString()).body()"
    )
    assert peer.run(code).text == "from the proxy"
    assert peer.run('System.getProperty("http.nonProxyHosts")').text.endswith(
        "direct.invalid|*.corp"
    )


def test_a_repository_that_cannot_be_reached_is_an_error(driver):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    peer = driver(MAVEN_MIRROR_URL=f"http://127.0.0.1:{port}")
    run = peer.run("%maven test.crow:nest:1.0")
    assert run.error["name"] == "MagicError"
    assert "test.crow:nest" in run.error["message"]
    assert peer.run("1 + 1").text == "2"


@pytest.mark.skipif(
    bool(os.environ.get("CROWNEST_TEST_OFFLINE")), reason="CROWNEST_TEST_OFFLINE"
)
def test_coordinates_that_do_not_exist(driver):
    peer = driver()
    for coordinates in ("no-colon", "a:b:c:d:e:f:g", "test.nowhere:thing:1"):
        run = peer.run(f"%maven {coordinates}")
        assert run.error["name"] == "MagicError", run.error
