import subprocess
import sys

import pytest

import fedd.api


def test_every_public_name_can_be_imported() -> None:
    for name in fedd.api.__all__:
        assert getattr(fedd.api, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pickle'"):
        _ = fedd.api.Pickle


def test_errors_come_without_pluggy() -> None:
    script = "import sys, fedd.api.errors; from fedd.api import NotFound; print('pluggy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
