"""An interpreter that has what this one has, and further plugins: modules written for a test."""

from __future__ import annotations

import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def plugged(plugins: Mapping[str, str], distribution: str = "strangers") -> Iterator[Path]:
    """The path of such a `python`, in a virtual environment of its own with a `fedctl` beside it.

    `plugins` maps a module's name to its text; each is a plugin of the module's name.
    """
    with tempfile.TemporaryDirectory(prefix="fedd-venv-") as scratch:
        folder = Path(scratch)
        venv.create(folder, with_pip=False)
        (site,) = folder.glob("lib/python3*/site-packages")
        here = [path for path in sys.path if path and Path(path).is_dir()]
        (site / "all.pth").write_text("\n".join(here) + "\n")
        info = site / f"{distribution.replace('-', '_')}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        points = "".join(f"{module} = {module}\n" for module in plugins)
        (info / "entry_points.txt").write_text(f"[fedd]\n{points}")
        for module, text in plugins.items():
            (site / f"{module}.py").write_text(text)
        fedctl = folder / "bin" / "fedctl"
        main = "import sys\nfrom fedd.cli.main import main\nsys.exit(main())\n"
        fedctl.write_text(f"#!{folder}/bin/python\n{main}")
        fedctl.chmod(0o755)
        yield folder / "bin" / "python"
