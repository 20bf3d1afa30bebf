"""What the tests of device code share."""

import os

import pytest


@pytest.fixture
def interpreter_scalars(monkeypatch):
    """Triton's interpreter counts loops with arrays of one element, of which newer numpy makes no integer. Without it, nothing."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    interpreter = pytest.importorskip("triton").runtime.interpreter
    patch = interpreter._patch_lang_tensor

    def patched(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
