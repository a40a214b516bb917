"""Asking whether weights can be had, on servers that answer, refuse or are silent."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from skanomaly._networks import hub

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
errors = pytest.importorskip("huggingface_hub.errors")
NAME = "weights.pth"


@pytest.fixture(params=["hub", "url"])
def ask(request, monkeypatch, tmp_path):
    """Asks a server for a file that is not in the cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")

    def ask(port):
        url = f"http://127.0.0.1:{port}/{NAME}"
        if request.param == "url":
            file = hub.WeightFile("net", url=url, folder=tmp_path)
        else:
            monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *args, **options: url)
            file = hub.WeightFile("net", "some/net", (NAME,))
        file.check_available()

    return ask


@pytest.fixture
def serve():
    """Starts a server that answers with a status; returns its port."""
    servers = []

    def serve(status):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                self.send_header("ETag", '"b10b"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", "3")
                self.end_headers()

            def log_message(self, *args):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_answers(ask, serve, status):
    """What it answers is for the library that downloads to say."""
    ask(serve(status))


def test_a_server_in_trouble(ask, serve):
    with pytest.raises(OSError, match="weights of net could not be downloaded .*503"):
        ask(serve(503))


def test_a_silent_server(ask, monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(OSError, match="weights of net could not be downloaded") as caught:
            ask(silent.getsockname()[1])
    assert "time" in str(caught.value).lower() and "\n" not in str(caught.value)


def test_no_server(ask, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(OSError, match="could not be downloaded") as caught:
            ask(taken.getsockname()[1])
    assert str(tmp_path) in str(caught.value)


def test_what_is_there_is_not_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--net" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("main")
    (snapshot / "b.bin").write_bytes(b"123")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)
    file = hub.WeightFile("net", "some/net", ("a.safetensors", "b.bin"))
    file.check_available()
    assert file.cached() == snapshot / "b.bin"
    (tmp_path / NAME).write_bytes(b"123")
    file = hub.WeightFile("net", url=f"http://127.0.0.1:9/{NAME}", folder=tmp_path)
    file.check_available()
    assert file.cached() == tmp_path / NAME


def test_places(monkeypatch, tmp_path):
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert hub.hub_folder() == tmp_path / "huggingface" / "hub"
    assert hub.torch_folder() == tmp_path / "torch" / "hub" / "checkpoints"
    assert hub.downloaded() == [] or all(tmp_path not in p.parents for *_, p in hub.downloaded())
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert hub.hub_folder() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub.hub_folder() == tmp_path / "cache"


def test_a_failed_download_names_what_moves_its_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for place, moved in [
        (None, f"{hub.hub_folder()} (HF_HOME moves it);"),
        (hub.hub_folder(), f"{hub.hub_folder()} (HF_HOME moves it);"),
        (hub.torch_folder(), f"{hub.torch_folder()} (TORCH_HOME moves it);"),
        (hub.clip_folder(), f"{hub.clip_folder()}; or"),
    ]:
        assert moved in str(hub.download_error("net", OSError("no"), place))


def test_files_are_those_that_timm_and_open_clip_ask_for(monkeypatch):
    """Recorded from the libraries themselves."""
    timm = pytest.importorskip("timm")
    open_clip = pytest.importorskip("open_clip")
    asked = []

    def record(repo_id, filename, **options):
        asked.append((repo_id, filename))
        raise errors.EntryNotFoundError(filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", record)
    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", record)
    for name in (
        "resnet18.tv_in1k",
        "vit_small_patch14_dinov2",
        "vit_base_patch16_clip_224.openai",
    ):
        file = hub.timm_file(name)
        source = timm.models._builder._resolve_pretrained_source(
            timm.get_pretrained_cfg(name).to_dict()
        )[1]
        asked.clear()
        with pytest.raises(errors.EntryNotFoundError):
            timm.models._hub.load_state_dict_from_hf(
                *([source] if isinstance(source, str) else source)
            )
        assert asked == [(file.repo, entry) for entry in file.files]
    for model, tag in (
        ("ViT-B-16", "openai"),
        ("ViT-B-16-plus-240", "laion400m_e32"),
        ("ViTamin-S", "datacomp1b"),
        ("ViT-B-16-SigLIP", "webli"),
    ):
        file = hub.open_clip_file(model, tag)
        asked.clear()
        with pytest.raises(FileNotFoundError):
            open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag))
        assert asked == [(file.repo, entry) for entry in file.files]


def repository(folder, kind, name, n_bytes):
    """A repository in the layout of the hub's cache."""
    place = folder / f"{kind}s--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / ("0" * 40)
    for part in (place / "blobs", place / "refs", snapshot):
        part.mkdir(parents=True)
    (place / "blobs" / "b10b").write_bytes(bytes(n_bytes))
    (place / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").symlink_to(place / "blobs" / "b10b")
    return place


def test_what_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(hub, "clip_folder", lambda: tmp_path / "clip")
    assert hub.downloaded() == []
    places = [repository(tmp_path / "hub", "model", f"some/{name}", 3) for name in ("b", "a-a")]
    repository(tmp_path / "hub", "dataset", "some/data", 3)
    (tmp_path / "hub" / "models--broken").mkdir()
    file = tmp_path / "clip" / NAME
    file.parent.mkdir()
    file.write_bytes(b"12345")
    assert hub.downloaded() == [
        ("some/a-a", 3, places[1]),
        ("some/b", 3, places[0]),
        (NAME, 5, file),
    ]
