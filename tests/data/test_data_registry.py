"""A data set is used only when every byte is the one that the catalog pins; everything else is said, with a remedy."""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from effbench import DataError
from effbench.data import cache, catalog, commands, registry, sources, store


def test_the_real_catalog_is_complete():
    assert registry.names() == ["digits", "fashion-mnist", "glosses-384", "minilm-l6-v2", "satellite", "wordnet"]
    for dataset in catalog.CATALOG.values():
        assert dataset.name and dataset.title and dataset.licence and dataset.source
        assert sum(map(bool, (dataset.files, dataset.needs_package, dataset.made))) == 1
        assert bool(dataset.made) == bool(dataset.of) == bool(dataset.maker) == bool(dataset.cost)
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in dataset.mirrors)
        for file in dataset.files:
            assert "/" not in file.name
            assert all(len(digest) == 64 and int(digest, 16) >= 0 and size > 0 for digest, size in file.wrappers.items())


def test_importing_the_registry_loads_no_numpy():
    code = "import sys, effbench.data.registry, effbench.data.commands; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(DataError, match=r"'fashon-mnist'.*Did you mean 'fashion-mnist'"):
        registry.get("fashon-mnist")


@pytest.mark.parametrize("name", ["../toy", "", "/etc", "toy/../toy"])
def test_a_name_is_never_a_path(toy, name):
    with pytest.raises(DataError):
        registry.path(name)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("EFFBENCH_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_folder() == tmp_path / ".cache/effbench/data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.cache_folder() == tmp_path / ".cache/effbench/data"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg/effbench/data"
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"


def test_fetch_from_an_installed_package_then_load(installed):
    said = []
    assert registry.state("toy") == "missing"
    folder = registry.fetch("toy", lambda *step: said.append(step))
    assert registry.state("toy") == "here"
    assert said[0][1:] == (0, catalog.CATALOG["toy"].bytes)  # the size is told before anything is fetched
    assert sorted(item.name for item in folder.iterdir()) == ["labels.gz", "numbers.gz"]  # no scratch left
    assert registry.load("toy")["numbers"].shape == (20, 30)


def test_a_source_with_wrong_bytes_is_refused(installed):
    """The broken variant of every source: right size, one bit wrong."""
    data = bytearray((installed / "numbers.gz").read_bytes())
    data[-1] ^= 1
    (installed / "numbers.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"numbers\.gz has sha256 .* expected") as caught:
        registry.fetch("toy")
    assert registry.state("toy") == "missing"
    assert not (registry.path("toy") / "numbers.gz").exists()
    assert (registry.path("toy") / "labels.gz").exists()  # what was right is kept
    assert "EFFBENCH_MIRROR" in caught.value.remedy and "unpack" in caught.value.remedy


def test_this_suite_would_see_a_check_that_checks_nothing(installed, monkeypatch):
    (installed / "numbers.gz").write_bytes(b"anything")
    monkeypatch.setattr(registry, "fault", lambda file, path: "" if path.is_file() else "is missing")
    monkeypatch.setattr(registry, "place", os.replace)
    registry.fetch("toy")  # the broken registry takes it...
    assert registry.state("toy") == "damaged"  # ...and the state, computed apart, does not


def test_a_pinned_variant_is_accepted_and_another_wrapper_is_not(toy, cached, monkeypatch, raw):
    import gzip
    import hashlib

    again = gzip.compress(gzip.decompress(raw["numbers.gz"]), mtime=1)
    (cached / "numbers.gz").write_bytes(again)
    assert registry.state("toy") == "damaged"
    first = replace(toy.files[0], variants=((hashlib.sha256(again).hexdigest(), len(again)),))
    monkeypatch.setitem(catalog.CATALOG, "toy", replace(toy, files=(first, toy.files[1])))
    assert registry.state("toy") == "here"


def test_damage_is_found_named_and_mended(cached, installed):
    data = bytearray((cached / "labels.gz").read_bytes())
    data[12] ^= 0xFF
    (cached / "labels.gz").write_bytes(data)
    assert registry.state("toy") == "damaged"
    assert [row["state"] for row in registry.verify("toy")] == ["ok", "damaged"]
    with pytest.raises(DataError, match=r"damaged \(labels\.gz has sha256.*effbench data fetch toy"):
        registry.load("toy")
    registry.fetch("toy")
    assert registry.state("toy") == "here"


def test_missing_data_is_never_fetched_by_load(installed):
    with pytest.raises(DataError, match=r"'toy' is missing.*Run `effbench data fetch toy`"):
        registry.load("toy")
    assert not registry.path("toy").exists()


def test_offline_every_attempt_is_listed(toy, monkeypatch, tmp_path):
    dead = "http://127.0.0.1:9/"  # nothing listens on the discard port
    monkeypatch.setitem(catalog.CATALOG, "toy", replace(toy, package="dataset-toy", mirrors=(dead,)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError) as caught:
        registry.fetch("toy")
    text = str(caught.value)
    for part in (
        "usr/share/toy: no such folder",
        "apt-get is not on this machine",
        f"{dead}: numbers.gz:",
        "dataset-toy",
        "EFFBENCH_MIRROR",
    ):
        assert part in text
    assert caught.value.where == str(registry.path("toy"))


def test_a_mirror_folder_of_ones_own(toy, raw, tmp_path, monkeypatch):
    home = tmp_path / "mirror" / "toy"
    home.mkdir(parents=True)
    for name, data in raw.items():
        (home / name).write_bytes(data)
    monkeypatch.setenv("EFFBENCH_MIRROR", str(tmp_path / "mirror"))
    registry.fetch("toy")
    assert registry.state("toy") == "here"


def test_a_mirror_over_http_that_sends_too_much(toy, raw, monkeypatch):
    import http.server

    class Server(http.server.BaseHTTPRequestHandler):
        endless = False

        def do_GET(self):
            data = raw.get(self.path.rsplit("/", 1)[-1])
            self.send_response(200 if data else 404)
            self.end_headers()
            self.wfile.write((data or b"") + (b"x" * 100_000 if self.endless else b""))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("EFFBENCH_MIRROR", f"http://127.0.0.1:{server.server_port}")
        Server.endless = True
        with pytest.raises(DataError, match=r"numbers\.gz is longer than"):
            registry.fetch("toy")
        Server.endless = False
        registry.fetch("toy")
        server.shutdown()
    assert registry.state("toy") == "here"


def test_an_address_of_another_kind_is_refused(toy, monkeypatch):
    monkeypatch.setenv("EFFBENCH_MIRROR", "file:///etc")
    with pytest.raises(DataError, match="neither https://"):
        registry.fetch("toy")


def test_loaded_arrays_are_kept_checked_and_remade(toy, cached):
    first = registry.load("toy")
    home = store.folder_of(toy, cached)
    assert {item.name for item in home.iterdir()} == {"arrays.json", "labels.npy", "numbers.npy"}
    first["numbers"][:] = 0  # the caller's own
    second = registry.load("toy")
    assert second["numbers"].max() == 255 and second["labels"].dtype == np.int64 and list(second) == ["numbers", "labels"]
    data = bytearray((home / "numbers.npy").read_bytes())
    data[-1] ^= 1
    (home / "numbers.npy").write_bytes(data)
    third = registry.load("toy")
    assert np.array_equal(third["numbers"], second["numbers"])
    assert np.array_equal(np.load(home / "numbers.npy"), second["numbers"])


def test_kept_arrays_are_not_used_for_another_version(toy, cached, monkeypatch):
    registry.load("toy")
    newer = replace(toy, version=2, loader=lambda folder: {"numbers": np.zeros(3)})
    monkeypatch.setitem(catalog.CATALOG, "toy", newer)
    assert registry.load("toy")["numbers"].shape == (3,)


def test_maps_are_shared_and_read_only(cached):
    arrays = registry.load("toy", mmap=True)
    assert isinstance(arrays["numbers"], np.memmap)
    with pytest.raises(ValueError):
        arrays["numbers"][0, 0] = 1


def test_a_cache_that_cannot_be_written_still_loads(toy, cached, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store, "lock", refuse)
    assert registry.load("toy")["numbers"].shape == (20, 30)
    assert not store.folder_of(toy, cached).exists()


def test_a_cache_that_cannot_be_made_is_explained(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cannot be written.*EFFBENCH_DATA"):
        registry.fetch("toy")


def _hold(name, ready, release):
    with cache.lock(name):
        ready.set()
        release.wait(20)


def test_a_second_process_waits_then_finds_it_there(installed, monkeypatch):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=("toy", ready, release))
    holder.start()
    assert ready.wait(20)
    calls, said = [], []
    real = sources._copy
    monkeypatch.setattr(sources, "_copy", lambda *args: (calls.append(1), real(*args)))
    threads = [threading.Thread(target=registry.fetch, args=("toy", lambda *step: said.append(step[0]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    threads[0].join(0.3)
    assert threads[0].is_alive() and not calls  # nobody fetches while another holds the lock
    release.set()
    for thread in threads:
        thread.join(20)
    holder.join(20)
    assert registry.state("toy") == "here" and len(calls) == 1  # one fetched, the others found it
    assert any("another process" in text for text in said)


def test_a_lock_dies_with_its_holder_and_waiting_ends(toy):
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=("toy", ready, release))
    holder.start()
    assert ready.wait(20)
    with pytest.raises(DataError, match="another process has held"), cache.lock("toy", wait=0.2):
        pass
    holder.kill()
    holder.join(20)
    with cache.lock("toy", wait=2):
        pass


def test_inputs_name_the_pinned_bytes(toy):
    assert registry.inputs("toy") == {f"toy/{file.name}": file.sha256 for file in toy.files}


def test_commands_return_plain_data(installed, tmp_path):
    rows = {row["name"]: row for row in commands.listing()}
    assert rows["toy"]["state"] == "missing" and rows["toy"]["bytes"] > 0 and rows["toy"]["licence"] == "CC0"
    states = {row["name"]: row for row in commands.fetch()}
    assert (
        states["toy"]["state"] == "here"
        and states["other"]["state"] == "failed"
        and "could not be fetched" in states["other"]["error"]
    )
    assert {(row["name"], row["state"]) for row in commands.verify()} == {("toy", "ok"), ("other", "missing")}
    assert commands.pack([], tmp_path / "all.tar")["names"] == ["toy"]
    assert commands.path() == str(tmp_path / "cache") and commands.path("toy").endswith("/toy")
    with pytest.raises(DataError, match="no data set"):
        commands.verify(["nothing"])


def test_digits_need_no_download():
    if importlib.util.find_spec("sklearn") is None:  # importing it takes seconds, and loading must not need that
        pytest.skip("scikit-learn is not installed")
    arrays = registry.load("digits")
    assert arrays["images"].shape == (1797, 64) and arrays["images"].dtype == np.float64 and arrays["images"].max() == 16
    assert np.bincount(arrays["labels"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    code = "import sys, effbench; effbench.dataset('digits'); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    assert (
        registry.state("digits") == "here"
        and registry.inputs("digits") == {}
        and registry.fetch("digits") is None
        and registry.verify("digits") == []
    )
    with pytest.raises(DataError, match="no files of its own"):
        registry.path("digits")


def test_a_missing_python_package_is_named(toy, monkeypatch):
    needing = replace(toy, files=(), needs_package="effbench-no-such-package")
    monkeypatch.setitem(catalog.CATALOG, "toy", needing)
    assert registry.state("toy") == "missing"
    for ask in (registry.fetch, registry.load):
        with pytest.raises(DataError, match="pip install effbench-no-such-package"):
            ask("toy")
