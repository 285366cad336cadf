"""Whether nginx could listen on an address: `nginx -t` doesn't notice that somebody else does.

Who that is, `sockets` knows. A start with nothing to do asks this as well, so nothing but the interpreter is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
else:
    import _socket as socket  # what is around it takes longer than the rest of such a start


def why_not_free(host: str, port: int, *, ipv6only: bool = True) -> str | None:
    """Why nginx could not listen on this address now; None if it could.

    Bound as nginx binds (ngx_open_listening_sockets), and never listened on: nobody can connect.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return f"socket() failed ({error.errno}: {error.strerror})"
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(ipv6only))
        probe.bind((host, port))
    except OSError as error:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        return f"bind() to {shown}:{port} failed ({error.errno}: {error.strerror})"
    finally:
        probe.close()
    return None
