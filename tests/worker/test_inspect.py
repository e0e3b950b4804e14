"""The inspector lists what there is; a plugin that misbehaves is listed with its reason and hurts nobody."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from worker import strangers

from fedd.worker import inspect

NOISY = "print('A plugin prints to stdout: {\"plugins\": []}')\n"
ANOTHER = strangers.GOOD.replace('"echo"', '"echo-again"')


def inspected(site: Path) -> dict[str, dict[str, Any]]:
    done = strangers.run(site, "inspect")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["format"] == 1
    return {plugin["name"]: plugin for plugin in document["plugins"]}


def test_what_a_good_plugin_looks_like(tmp_path: Path) -> None:
    strangers.install(tmp_path, {"good": "good_plugin"}, {"good_plugin": NOISY + strangers.GOOD})
    assert inspected(tmp_path) == {
        "good": {
            "name": "good",
            "value": "good_plugin",
            "distribution": "strangers",
            "version": "1.2",
            "error": None,
            "algorithms": [
                {
                    "name": "echo",
                    "doc": "Says what it hears.",
                    "parameters": [
                        {"name": "times", "type": "int", "default": 2, "help": "how often", "choices": None},
                        {
                            "name": "mode",
                            "type": "str",
                            "default": "loud",
                            "help": "",
                            "choices": ["loud", "quiet"],
                        },
                    ],
                    "contract": "survivors",
                    "joinable": False,
                    "topology": "",
                    "contracts": {},
                }
            ],
            "commands": [],
            "learners": [],
            "aggregators": [],
        }
    }


def test_a_class_without_docstring_has_no_doc(tmp_path: Path) -> None:
    silent, count = re.subn(r'    """Says what it hears\..*?"""\n', "", strangers.GOOD, flags=re.DOTALL)
    assert count == 1
    strangers.install(tmp_path, {"silent": "silent_plugin"}, {"silent_plugin": silent})
    (algorithm,) = inspected(tmp_path)["silent"]["algorithms"]
    assert algorithm["doc"] == ""


REGISTER = "from fedd.api import hookimpl\n@hookimpl\ndef fedd_register_algorithms():\n    return "
BAD = {
    "missing": ("import a_module_that_nobody_has\n", "No module named 'a_module_that_nobody_has'"),
    "syntax": ("def f(:\n", "SyntaxError"),
    "raises": ("raise RuntimeError('no licence found')\n", "RuntimeError: no licence found"),
    "exits": ("import sys\nprint('bye')\nsys.exit(7)\n", "SystemExit: 7"),
    "vanishes": ("import os\nos._exit(3)\n", "ended the process with exit code 3"),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "interrupts": ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    "no_list": (REGISTER + "5\n", "must return a list of classes"),
    "no_classes": (REGISTER + "[5]\n", "must return a list of classes"),
    "no_algorithm": (REGISTER + "[int]\n", "no dataclass"),
    "wrong_hook": ("from fedd.api import hookimpl\n@hookimpl\ndef fedd_rigister(): ...\n", "fedd_rigister"),
    "too_many": (REGISTER + "[int] * 1000\n", "registers 1000 algorithms"),
    "twice": (strangers.GOOD.replace("[Echo]", "[Echo, Echo]"), "registered twice"),
    "talks": (ANOTHER.replace('"how often"', "'x' * 10_000_000"), None),
}


def test_what_a_bad_plugin_costs_the_others(tmp_path: Path) -> None:
    modules = {f"plugin_{name}": text for name, (text, _) in BAD.items()}
    points = {name: f"plugin_{name}" for name in BAD} | {
        "good": "good_plugin",
        "nothing": "good_plugin:nothing",
    }
    strangers.install(tmp_path, points, {**modules, "good_plugin": strangers.GOOD})
    plugins = inspected(tmp_path)
    assert plugins["good"]["error"] is None
    assert [algorithm["name"] for algorithm in plugins["good"]["algorithms"]] == ["echo"]
    for name, (_, said) in BAD.items():
        if said is None:
            assert plugins[name]["error"] is None
            assert len(plugins[name]["algorithms"][0]["parameters"][0]["help"]) == 2000
        else:
            assert said in plugins[name]["error"], (name, plugins[name]["error"])
            assert plugins[name]["algorithms"] == []
    assert "nothing" in plugins["nothing"]["error"]


def test_names_belong_to_the_first(tmp_path: Path) -> None:
    strangers.install(tmp_path / "a", {"one": "good_plugin"}, {"good_plugin": strangers.GOOD}, "first")
    strangers.install(tmp_path / "a", {"one": "other", "two": "other"}, {"other": strangers.GOOD}, "second")
    done = strangers.run(tmp_path / "a", "inspect")
    plugins = json.loads(done.stdout)["plugins"]
    errors = sorted(str(plugin["error"]) for plugin in plugins)
    assert len(plugins) == 3
    assert errors[0] == "None"
    assert "the algorithm echo is registered by one already" in errors[1]
    assert "the name one is taken by" in errors[2]


def children() -> set[str]:
    """Process ids of this thread's children, zombies too."""
    return set(Path("/proc/thread-self/children").read_text().split())


def test_a_plugin_that_never_finishes_to_import_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers.install(tmp_path, {"hangs": "plugin_hangs"}, {"plugin_hangs": "while True: pass\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    (point,) = [point for point in inspect.entry_points() if point.name == "hangs"]
    before = children()
    started = time.monotonic()
    described = inspect._in_child(point, 0.2)
    assert described == {
        "error": "it did not finish to import within 0.2 s",
        "algorithms": [],
        "commands": [],
        "learners": [],
        "aggregators": [],
    }
    assert time.monotonic() - started < 5
    assert children() <= before  # whatever earlier tests in this process have left


def test_a_description_without_bound_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = strangers.GOOD.replace(
        "    mode:", "".join(f"    p{n}: str = 'x' * 90\n" for n in range(4000)) + "    mode:"
    )
    strangers.install(tmp_path, {"large": "plugin_large"}, {"plugin_large": many})
    monkeypatch.syspath_prepend(str(tmp_path))
    (point,) = [point for point in inspect.entry_points() if point.name == "large"]
    assert "more than 262144" in inspect._in_child(point, 20)["error"]


def test_wrong_usage(tmp_path: Path) -> None:
    for arguments in ((), ("run",), ("run", "x"), ("inspect", "more")):
        done = strangers.run(tmp_path, *arguments)
        assert done.returncode == 2
        assert "usage" in done.stderr


def test_the_bundled_plugins_are_found_by_their_entry_points() -> None:
    pytest.importorskip("fedd_consensus")
    points = {point.name: point for point in inspect.entry_points()}
    if "consensus" not in points:
        pytest.skip("fedd is not installed here")
    for name, algorithms in (("consensus", ["consensus", "max", "min"]), ("regression", ["regression"])):
        described = inspect.describe(points[name])
        assert described["error"] is None
        assert [algorithm["name"] for algorithm in described["algorithms"]] == algorithms
        assert all(algorithm["doc"] for algorithm in described["algorithms"])
        assert all(p["help"] for algorithm in described["algorithms"] for p in algorithm["parameters"])
    commands = {command["name"]: command for command in inspect.describe(points["basics"])["commands"]}
    assert {name: command["event_text"] for name, command in commands.items()} == {
        "echo": "",
        "facts": "",
        "note": "text",
    }
    (text,) = commands["note"]["parameters"]
    assert (text["max_chars"], text["required"]) == (500, True)
