"""The workflows of .github/ can be read by the forge, and call no script that is not there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.skipif(not WORKFLOWS, reason="not in the source distribution")
@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint: pip install '.[workflows]'")
def test_actionlint():
    subprocess.run(["actionlint", *WORKFLOWS], check=True)


def test_what_is_called_is_there():
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    called = re.findall(r"(?:^|\s)((?:\.ci|bench|tests|tools)/[\w/]+(?:\.py|\.sh)?)(?=\s)", text)
    assert [path for path in called if not (ROOT / path).exists()] == []
