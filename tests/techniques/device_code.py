"""Device code as a test needs it."""

import importlib.util


def module(source, folder, *replaced):
    """The file `source` with lines replaced by pairs (old, new), as a module of its own: the real one stays uninterpreted."""
    text = source.read_text()
    for old, new in replaced:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "device.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("device", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
