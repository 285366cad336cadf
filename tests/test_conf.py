"""What `conf/` offers can be used as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.containers import NGINX_ORG
from tests.servers import ROOT, environment

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ("nginx-acme-renew.service", "nginx-acme-renew.timer")
DROP_INS = ("nginx.service.d/acme.conf", "nginx-sandbox.conf")


@pytest.mark.skipif(os.geteuid() != 0, reason="nginx tries port 443 even for -t")
def test_example(each_nginx: str, open_path: Path) -> None:
    """The example is a valid config, for both versions of nginx."""
    example = (ROOT / "conf" / "nginx.conf").read_text()
    for folder in ("/run", "/var/log/nginx", "/var/lib/nginx-acme"):
        example = example.replace(folder, str(open_path))
    conf = open_path / "nginx.conf"
    conf.write_text(example)
    (open_path / "mime.types").write_text("types { text/html html; }\n")
    asked = subprocess.run(
        (sys.executable, "-m", "nginx_acme", "-t", "-e", "stderr", "-c", str(conf)),
        env=environment(NGINX_ACME_NGINX=each_nginx, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert f"configuration file {conf} test is successful" in asked.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_units(tmp_path: Path) -> None:
    """Systemd finds nothing to complain of in the units, and the drop-ins fit nginx.org's unit."""
    launcher = tmp_path / "nginx-acme"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)

    def place(source: Path, to: Path) -> None:
        to.parent.mkdir(exist_ok=True)
        to.write_text(source.read_text().replace("/usr/local/bin/nginx-acme", str(launcher)))

    for name in UNITS:
        place(ROOT / "conf" / name, tmp_path / name)
    for name in DROP_INS:
        place(ROOT / "conf" / name, tmp_path / "nginx.service.d" / os.path.basename(name))
    (tmp_path / "nginx.service").write_text(NGINX_ORG)
    asked = subprocess.run(
        ("systemd-analyze", "verify", "nginx.service", *UNITS),
        cwd=tmp_path,
        env=environment(SYSTEMD_UNIT_PATH=f"{tmp_path}:"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stderr == ""
    assert asked.returncode == 0
