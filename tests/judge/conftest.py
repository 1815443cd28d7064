import shutil

import pytest

from tests.support.command import succeeds
from tests.support.judged import STUDY
from tests.support.stub_server import StubServer


@pytest.fixture
def serve():
    """A function that starts a server with a ``reply``."""
    servers = []

    def start(reply):
        servers.append(StubServer(reply=reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="package")
def made(tiny_model, tiny_run, tmp_path_factory):
    """A folder with ``results/tiny``: base, two checkpoints, two settings, two samples of 15 poems."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "tiny.yaml").write_text(STUDY.format(base=tiny_model, run=tiny_run))
    succeeds(folder, "run", "tiny.yaml")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return shutil.copytree(made, tmp_path / "here")
