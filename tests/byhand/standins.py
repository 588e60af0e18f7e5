"""Programs of Debian in the place of images that are not ours, started as the images' own entry points start them, and an S3 of the tests.

What each image's entry point does is known from its publisher's build file; that is what is imitated here, not the program.
"""

from pathlib import Path
from typing import Final

from tests.byhand.composed import StandIn
from tests.byhand.containerfile import Image
from tests.byhand.rooms import Bind, skeleton
from tests.objectstore import SERVER as MOTO
from tests.postgres import binaries

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The main file of the image `nginx`, as far as it matters; conf.d is the file's own.
_NGINX: Final = """
user www-data;
worker_processes 2;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent';
    access_log /var/log/nginx/access.log main;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
"""
#: What the image `postgres` does on an empty folder, then always. While it makes the database, a server answers on the socket alone.
_POSTGRES: Final = r"""
set -e
mkdir -p "$PGDATA" /run/postgresql
chown -R postgres: "$PGDATA" /run/postgresql
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
password=$(cat "$POSTGRES_PASSWORD_FILE")
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "$password" > /tmp/pw; chown postgres: /tmp/pw
    as initdb --username="$POSTGRES_USER" --pwfile=/tmp/pw --no-sync $POSTGRES_INITDB_ARGS
    printf 'host all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    as pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    as createdb --username="$POSTGRES_USER" "$POSTGRES_USER"
    as pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups postgres -c listen_addresses='*' "$@"
"""
#: MinIO reads its first account from two files. moto believes everybody, so what is shown is that the files are there, and the port.
_STORE: Final = r"""
set -e
test -s "$MINIO_ROOT_USER_FILE" && test -s "$MINIO_ROOT_PASSWORD_FILE"
[ "$1" = server ] && test -d "$2"
exec "$MOTO" -H 0.0.0.0 -p 9000
"""


def _bare(folder: Path, name: str, path: str = _PATH) -> Image:
    return Image(skeleton(folder / name), {"PATH": path, "LANG": "C.UTF-8"})


def nginx(folder: Path) -> StandIn:
    """Return what stands in for the image `nginx`."""
    image = _bare(folder, "nginx")
    etc = image.root / "etc/nginx"
    (etc / "conf.d").mkdir(parents=True)
    (etc / "nginx.conf").write_text(_NGINX)
    (etc / "mime.types").write_bytes(Path("/etc/nginx/mime.types").read_bytes())
    (image.root / "var/log/nginx").mkdir()
    (image.root / "var/lib/nginx").mkdir()
    (image.root / "var/log/nginx/error.log").symlink_to("/dev/stderr")
    (image.root / "var/log/nginx/access.log").symlink_to("/dev/stdout")
    image.stop_signal = "SIGQUIT"
    image.command = ["nginx", "-g", "daemon off;"]
    return StandIn(image, lambda words: words)


def postgres(folder: Path) -> StandIn:
    """Return what stands in for the image `postgres`."""
    image = _bare(folder, "postgres", f"{binaries()}:{_PATH}")
    image.env["PGDATA"] = "/var/lib/postgresql/data"
    image.stop_signal = "SIGINT"
    return StandIn(image, lambda words: ["/bin/sh", "-c", _POSTGRES, "postgres", *words])


def store(folder: Path) -> StandIn:
    """Return what stands in for the image `minio`."""
    image = _bare(folder, "store")
    home = MOTO.parents[1]
    image.env["MOTO"] = str(MOTO)
    # its environment, at the place that it was made for
    return StandIn(
        image, lambda words: ["/bin/sh", "-c", _STORE, "store", *words], (Bind(home, str(home)),)
    )


def prometheus(folder: Path) -> StandIn:
    """Return what stands in for the image `prometheus`; it works as nobody, as the image does."""
    image = _bare(folder, "prometheus")
    (image.root / "prometheus").mkdir(mode=0o755)
    (image.root / "prometheus").chmod(0o777)
    image.user, image.folder = "65534", "/prometheus"
    return StandIn(image, lambda words: ["prometheus", *words])
