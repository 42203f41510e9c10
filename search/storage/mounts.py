"""Which file system a file lies on."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")  # Linux; elsewhere nothing is known
_NETWORK = re.compile(
    r"nfs\d*|cifs|smb\d*|smbfs|afs|9p|ceph|lustre|beegfs\w*|gpfs|glusterfs|pvfs2|orangefs|ncpfs"
    r"|fuse\.(sshfs|glusterfs|s3fs|rclone|gcsfuse|ceph\w*|juicefs|moosefs|goofys)"
)


def network_filesystem(path: Path) -> str | None:
    """The type of the network file system that a path lies on; None on a local one."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    found, deepest = "", -1
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        # Blanks and backslashes of a mount point stand as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)
        depth = len(Path(point).parts)
        if resolved.is_relative_to(point) and depth >= deepest:  # a later one hides an earlier
            found, deepest = kind, depth
    return found if _NETWORK.fullmatch(found) else None
