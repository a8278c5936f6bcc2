"""Network file systems, on which SQLite cannot be shared: its write-ahead log needs memory that all writers share."""

from __future__ import annotations

import logging
from pathlib import Path

from runner.tracking.mlflow_store import SQLITE, sqlite_path

log = logging.getLogger(__name__)
_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {
        *("afs", "9p", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs"),
        *("pvfs2", "smb3", "smbfs", "wekafs", "fuse.cephfs", "fuse.glusterfs", "fuse.sshfs"),
    }
)


def warn_of_network(uri: str) -> None:
    """Warn if a tracking URI names a SQLite file on a network file system, where jobs of several machines write it."""
    if uri.startswith(SQLITE) and (kind := network_file_system(Path(sqlite_path(uri)))) is not None:
        log.warning(
            "warning: %s is on a network file system (%s), where SQLite loses records that several machines write: "
            "give tracker=jsonl and afterwards hydromel sync, or tracker.uri=http://HOST:PORT",
            sqlite_path(uri),
            kind,
        )


def network_file_system(path: Path) -> str | None:
    """Return the kind of the network file system that a path is on, such as nfs4; None for a local or unknown one."""
    try:
        lines = [line.split(" ") for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:  # not Linux
        return None
    path = path.expanduser().absolute()
    # of several mounts at one place the last one counts
    mounts = {Path(fields[1].replace("\\040", " ")): fields[2] for fields in lines if len(fields) > 2}
    kind = next((mounts[place] for place in (path, *path.parents) if place in mounts), "")
    return kind if kind in _NETWORK else None
