from pathlib import Path

import pytest

from fedd.config import BadConfig, default_name, load
from fedd.config_keys import DEFAULT_LISTEN, KEYS
from fedd.config_lines import key_lines

PEER = "12D3KooWCQdKCjTSiHZLAbwdsqb1SrPiU1fMFVSz4D3kSVmWvjGy"
ADDRESS = f"/ip4/192.0.2.7/tcp/4747/p2p/{PEER}"

FULL = f"""
[node]
name = "vib-1"
listen = ["/ip4/0.0.0.0/tcp/4747", "/ip6/::/tcp/4747"]
announce = ["/dns4/vib.example/tcp/4747"]
connect = ["{ADDRESS}"]
mdns = false

[presence]
profile = "metered"

[limits]
max_connections = 64
edge_timeout_s = 12

[policy]
commands = ["beep"]
aggregators = ["trimmed"]
algorithms = ["vote"]
initiators = ["boss"]
inputs = {{ temp = ["consensus", "max"] }}
network = ["weather"]
writable = ["models", "/srv/models"]

[inputs.temp]
value = 20.5

[inputs.table]
file = "rows.csv"

[inputs.sensor]
command = ["read-sensor", "-1"]

[inputs.digits]
learner = "numpy-mlp"
file = "digits.npz"
hidden = "64,32"
step = 0.5

[inputs.free]
learner = "own"

[plugins.vote]
anything = {{ goes = [1, 2] }}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "fedd.toml"
    path.write_text(text)
    return str(path)


def problems(tmp_path: Path, text: str) -> list[tuple[str, int, str, str]]:
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as caught:
        load(path)
    found = caught.value.problems
    assert {problem.file for problem in found} == {path}
    return [(problem.key, problem.line, problem.detail, problem.hint) for problem in found]


def test_without_a_file_the_defaults_stand() -> None:
    config = load()
    assert config.name == default_name()
    assert config.listen == DEFAULT_LISTEN
    assert config.presence_profile == "lan"
    assert config.limits["max_connections"] == 128
    assert config.inputs == config.plugins == {}
    assert config.path is None


def test_every_key_can_be_set(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    config = load(path)
    assert config.path == path
    assert config.name == "vib-1"
    assert config.listen == ("/ip4/0.0.0.0/tcp/4747", "/ip6/::/tcp/4747")
    assert config.announce == ("/dns4/vib.example/tcp/4747",)
    assert config.connect == (ADDRESS,)
    assert config.presence_profile == "metered"
    assert config.limits["max_connections"] == 64
    assert config.limits["edge_timeout_s"] == 12.0
    assert config.policy_algorithms == ("vote",)
    assert config.policy_commands == ("beep",)
    assert config.policy_inputs == {"temp": ("consensus", "max")}
    assert config.policy_initiators == ("boss",)
    assert config.inputs == {
        "temp": {"value": 20.5},
        "table": {"file": str(tmp_path / "rows.csv")},
        "sensor": {"command": ("read-sensor", "-1")},
        "digits": {
            "learner": "numpy-mlp",
            "file": str(tmp_path / "digits.npz"),
            "options": {"hidden": "64,32", "step": 0.5},
        },
        "free": {"learner": "own", "options": {}},
    }
    assert config.policy_aggregators == ("trimmed",)
    assert config.policy_network == ("weather",)
    assert config.policy_writable == (str(tmp_path / "models"), "/srv/models")
    assert config.plugins == {"vote": {"anything": {"goes": [1, 2]}}}


def test_the_command_line_wins_and_connects_to_more(tmp_path: Path) -> None:
    other = ADDRESS.replace("192.0.2.7", "192.0.2.8")
    path = write(tmp_path, FULL)
    config = load(path, {"name": "x", "listen": ["/ip4/127.0.0.1/tcp/0"], "connect": [other]})
    assert (config.name, config.listen) == ("x", ("/ip4/127.0.0.1/tcp/0",))
    assert config.connect == (ADDRESS, other)
    assert load(path, {"name": None, "listen": [], "connect": []}).name == "vib-1"


def test_a_bad_command_line_is_blamed_itself() -> None:
    with pytest.raises(BadConfig, match="command line: --listen") as caught:
        load(None, {"listen": ["tcp:4747"]})
    assert "/ip4/0.0.0.0/tcp/4747" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "line", "said", "hint"),
    [
        ("[node]\n\nnmae = 'x'", "node.nmae", 3, "unknown key", "did you mean name?"),
        ("[nodes]\nname = 'x'", "nodes", 1, "unknown table", "did you mean node?"),
        ("name = 'x'", "name", 1, "unknown key", "write it below [node]"),
        ("[limits]\nmax_conections = 3", "limits.max_conections", 2, "unknown key", "max_connections"),
        ("[federation]\nroot = 1", "federation.root", 2, "unknown key", "known are allow, name"),
        ("[federation]\nallow = 'x'", "federation.allow", 2, "not a list", "12D3KooW"),
        ("[federation]\nallow = ['x']", "federation.allow", 2, "not a peer id", "12D3KooW"),
        ("node = 3", "node", 1, "is a table", "[node]"),
        ("[node]\nname = 3", "node.name", 2, "not a text", ""),
        (
            "[node]\nname = 'a\\tb'\n[presence]\nprofile = 'wan'",
            "presence.profile",
            4,
            "'wan'",
            "lan, metered",
        ),
        ('[node]\nname = "a\\tb"', "node.name", 2, "control characters", ""),
        ("[node]\nlisten = '/ip4/0.0.0.0/tcp/1'", "node.listen", 2, "not a list", "for example"),
        ("[node]\nlisten = ['/ip4/1.2.3.4.5/tcp/1']", "node.listen", 2, "not an address", "for example"),
        ("[node]\nlisten = ['/ip4/1.2.3.4/udp/1']", "node.listen", 2, "tcp", ""),
        ("[node]\nlisten = ['/ip4/1.2.3.4/tcp/70000']", "node.listen", 2, "65535", ""),
        ("[node]\nconnect = ['/ip4/1.2.3.4/tcp/1']", "node.connect", 2, "/p2p/", "12D3KooW"),
        ("[node]\nlisten = ['/dns4/localhost/tcp/1']", "node.listen", 2, "numeric", "for example"),
        ('[node]\nmdns = "on"', "node.mdns", 2, "neither true nor false", "multicast DNS"),
        ("[limits]\nmax_runs = 1.5", "limits.max_runs", 2, "not a whole number", "between 1 and 256"),
        ("[limits]\nmax_runs = true", "limits.max_runs", 2, "not a whole number", ""),
        ("[limits]\nmax_runs = 0", "limits.max_runs", 2, "is 0", "the default is 16"),
        ("[limits]\nedge_timeout_s = inf", "limits.edge_timeout_s", 2, "not a number of seconds", ""),
        ("[limits]\nedge_timeout_s = 'long'", "limits.edge_timeout_s", 2, "not a number of seconds", ""),
        ("[policy]\ninputs = 3", "policy.inputs", 2, "is a table", ""),
        ("[policy.inputs]\ntemp = 'all'", "policy.inputs", 1, "not a list", ""),
        ("inputs = 3", "inputs", 1, "is a table", ""),
        ("[inputs]\ntemp = 3", "inputs.temp", 2, "is a table", "value = 3"),
        ("[inputs.'a b']\nvalue = 3", "inputs.a b", 1, "no name for an input", ""),
        ("[inputs.x]\n", "inputs.x", 1, "exactly one source, has none", ""),
        ("[inputs.x]\nvalue = 1\nfile = 'y'", "inputs.x", 1, "has value and file", ""),
        ("[inputs.x]\nvalue = 1\ninterval_s = 2", "inputs.x.interval_s", 3, "not available", ""),
        ("[inputs.x]\nlearner = 3", "inputs.x.learner", 2, "not a text", "registered by a plugin"),
        ("[inputs.x]\nlearner = 'm'\nvalue = 1\nfile = 'y'", "inputs.x", 1, "has value and file", ""),
        ("[inputs.x]\nlearner = 'm'\nsizes = [3, 4]", "inputs.x.sizes", 3, "is [3, 4]", "a number, a text"),
        ("[inputs.x]\nlearner = 'm'\nstep = nan", "inputs.x.step", 3, "is nan", "finite"),
        ("[inputs.x]\nlearner = 'm'\ncommand = 3", "inputs.x.command", 3, "not a list", ""),
        ("[inputs.x]\nvlaue = 1", "inputs.x.vlaue", 2, "unknown key", "did you mean value?"),
        ("plugins = 1", "plugins", 1, "is a table", ""),
        ("[plugins]\nvote = 1", "plugins.vote", 2, "is a table", ""),
        ("[node]\nname = = 3", "", 2, "not TOML", "toml.io"),
        ("[node]\nname = 'x'\nname = 'y'", "", 3, "not TOML", ""),
        ("x = " + "[" * 3000, "", 1, "not TOML", ""),
    ],
)
def test_what_is_wrong_is_said_with_key_line_and_hint(
    tmp_path: Path, text: str, key: str, line: int, said: str, hint: str
) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert found[0][:2] == (key, line)
    assert said in found[0][2]
    assert hint in found[0][3]


def test_all_problems_are_told_in_the_order_of_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, "[limits]\nmax_runs = 0\n[node]\nnmae = 1\nname = 2\n")
    assert [(key, line) for key, line, _, _ in found] == [
        ("limits.max_runs", 2),
        ("node.nmae", 4),
        ("node.name", 5),
    ]


def test_a_problem_reads_as_compilers_write_them(tmp_path: Path) -> None:
    path = write(tmp_path, "[node]\nnmae = 1")
    with pytest.raises(BadConfig) as caught:
        load(path)
    assert str(caught.value.problems[0]) == f"{path}:2: node.nmae: unknown key - did you mean name?"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read: No such file"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(BadConfig, match="cannot be read"):
        load(str(tmp_path))
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"[node]\nname = '\xff'")
    with pytest.raises(BadConfig, match=":2: is not UTF-8"):
        load(str(path))
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(BadConfig, match="larger than"):
        load(str(path))


def test_what_a_reload_can_change_is_told_from_what_needs_a_restart(tmp_path: Path) -> None:
    old = load(write(tmp_path, FULL))
    changed = FULL.replace("20.5", "21.5").replace('"vib-1"', '"vib-2"').replace('["vote"]', '["poll"]')
    new = load(write(tmp_path, changed.replace("[1, 2]", "[3]")))
    assert old.changes(new) == (["policy.algorithms", "inputs.temp"], ["node.name", "plugins.vote"])
    assert old.changes(old) == ([], [])


def test_the_table_of_keys_is_sound() -> None:
    for key in KEYS:
        assert key.help.endswith((".", "?")), key
        if key.kind in ("count", "seconds"):
            assert key.low <= key.default <= key.high, key


def test_lines_are_found_past_strings_brackets_and_comments() -> None:
    text = '''
a = """
b = 1
[c]
"""
d = [ # [
  "]", # "
  [1],
]
[e."f.g"]
h.i = 1
j = { k = 1 }
[[l]]
m = \'\'\'n = 1\'\'\'
o = "p \\" [ "
q = 1
'''
    assert key_lines(text) == {
        ("a",): 2,
        ("d",): 6,
        ("e", "f.g"): 10,
        ("e", "f.g", "h"): 11,
        ("e", "f.g", "h", "i"): 11,
        ("e", "f.g", "j"): 12,
        ("l",): 13,
        ("l", "m"): 14,
        ("l", "o"): 15,
        ("l", "q"): 16,
    }
