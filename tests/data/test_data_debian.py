"""Files come out of a .deb by exact name and size, and apt-get is asked without touching the system's own lists."""

import io
import shutil
import stat
import tarfile

import pytest

from effbench import DataError
from effbench.data import debian, registry, store


def deb(path, members, *, name="data.tar.xz", mode="w:xz", head=b"!<arch>\n"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for info, data in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    def member(label, data):
        return f"{label:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)

    path.write_bytes(head + member("debian-binary", b"2.0\n") + member("control.tar.xz", b"odd") + member(name, packed.getvalue()))
    return path


@pytest.mark.parametrize(
    "name, mode", [("data.tar.xz", "w:xz"), ("data.tar.gz", "w:gz"), ("data.tar", "w"), ("data.tar.xz/", "w:xz")]
)
def test_wanted_members_are_written_and_nothing_else(tmp_path, name, mode):
    members = [("./usr/share/toy/a", b"A" * 1000), ("./etc/passwd", b"no"), ("./usr/share/toy/b", b"B")]
    file = deb(tmp_path / "x.deb", members, name=name, mode=mode)
    wanted = {
        "usr/share/toy/a": (tmp_path / "one", 1000),
        "usr/share/toy/b": (tmp_path / "two", 9),
        "usr/share/toy/c": (tmp_path / "three", 9),
    }
    debian.extract(file, wanted)
    assert (tmp_path / "one").read_bytes() == b"A" * 1000 and (tmp_path / "two").read_bytes() == b"B"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["one", "two", "x.deb"]


def test_links_and_long_members_are_refused(tmp_path):
    link = tarfile.TarInfo("./usr/a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for members in ([(link, b"")], [("./usr/a", b"x" * 11)]):
        with pytest.raises(DataError, match="link or longer"):
            debian.extract(deb(tmp_path / "x.deb", members), {"usr/a": (tmp_path / "a", 10)})
        assert not (tmp_path / "a").exists()


def test_what_is_no_package_is_refused(tmp_path):
    whole = deb(tmp_path / "x.deb", [("./usr/a", b"x" * 50_000)]).read_bytes()
    for data in (
        b"",
        b"!<arch>\n",
        whole[:70],
        b"?" + whole[1:],
        whole[:-60],
        whole.replace(b"data.tar.xz", b"dada.tar.xz"),
        whole.replace(b"`\n", b"``"),
    ):
        (tmp_path / "y.deb").write_bytes(data)
        with pytest.raises(DataError):
            debian.extract(tmp_path / "y.deb", {"usr/a": (tmp_path / "a", 60_000)})


def fake_apt(folder, script, monkeypatch):
    folder.mkdir()
    (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "apt-get").chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_fresh_lists_are_fetched_when_the_machines_do_not_do(tmp_path, monkeypatch):
    script = f"""echo "$@" >> {tmp_path}/calls
case "$1" in -c) case "$3" in download) touch toy.deb;; esac;; *) echo "E: Unable to locate package toy"; exit 100;; esac"""
    fake_apt(tmp_path / "bin", script, monkeypatch)
    (tmp_path / "work").mkdir()
    assert debian.download("toy", tmp_path / "work").name == "toy.deb"
    calls = (tmp_path / "calls").read_text().splitlines()
    config = str(tmp_path / "work" / "apt.conf")
    assert calls == ["download toy", f"-c {config} update", f"-c {config} download toy"]
    assert str(tmp_path / "work") in (tmp_path / "work" / "apt.conf").read_text()


def test_apts_own_words_are_passed_on(tmp_path, monkeypatch):
    fake_apt(tmp_path / "bin", 'echo "Reading"; echo "E: Unable to locate package toy"; exit 100', monkeypatch)
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError, match="E: Unable to locate package toy; with fresh lists: E: Unable"):
        debian.download("toy", tmp_path / "work")


def test_an_apt_that_hangs_is_ended(tmp_path, monkeypatch):
    fake_apt(tmp_path / "bin", "sleep 60", monkeypatch)
    steps = []
    text = debian.command(["apt-get"], tmp_path, 0.5, "apt", 7, lambda *step: steps.append(step))
    assert text == "no end after 0.5 s" and steps == [("apt", 0, 7)] * len(steps) and steps


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine")
@pytest.mark.parametrize("name, shape", [("satellite", (6435, 36)), ("fashion-mnist", (60_000, 28, 28))])
def test_the_real_packages(tmp_path, monkeypatch, name, shape):
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("EFFBENCH_MIRROR", raising=False)
    registry.fetch(name)
    first = registry.load(name)
    assert registry.state(name) == "here" and next(iter(first.values())).shape == shape
    assert store.folder_of(registry.get(name), tmp_path / name).is_dir()
    assert all((first[key] == value).all() for key, value in registry.load(name).items())
