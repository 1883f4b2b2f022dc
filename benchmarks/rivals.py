"""Other proxies in front of the same origin, each set up as its own documentation would have it for this job.

All keep connections to the origin alive, write no access log, and set the four X-Forwarded headers where that takes a line.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from benchmarks import packages, ports, traffic_server
from benchmarks.traffic_server import Proxy
from tests.harness import processes
from tests.harness.processes import LOOPBACK

ORIGIN = "127.0.0.2"


def _port() -> int:
    return ports.free(LOOPBACK)


@contextlib.contextmanager
def _running(name: str, port: int, command: Sequence[str], directory: Path, env: Mapping[str, str]) -> Generator[Proxy]:
    child = processes.start(LOOPBACK, command, name=name, log_path=directory / f"{name}.log", env=env, cwd=directory)
    with processes.running(child):
        child.await_ready(f"{name} listens", lambda: processes.is_listening(LOOPBACK, "127.0.0.1", port), timeout_s=30)
        yield Proxy(name=name, port=port, pids=(child.pid,))


def _directory(root: Path, name: str) -> Path:
    directory = root / name
    directory.mkdir(mode=0o755)
    return directory


@contextlib.contextmanager
def nginx(root: Path, origin_port: int, *, cache: bool) -> Generator[Proxy]:
    """Run nginx with two workers; with `cache`, proxy_cache."""
    program = packages.program("nginx", "nginx-light")
    directory, port = _directory(root, "nginx"), _port()
    cached = "proxy_cache bench; proxy_cache_key $host$uri;" if cache else ""
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        f"""{user} daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log stderr;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi; keepalive_requests 1000000000;
  proxy_cache_path {directory}/cache keys_zone=bench:16m;
  upstream origin {{ server {ORIGIN}:{origin_port}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; {cached}
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port 80;
    }}
  }}
}}
""",
        encoding="utf-8",
    )
    command = [str(program.path), "-p", str(directory), "-e", "stderr", "-c", f"{directory}/nginx.conf"]
    with _running("nginx", port, command, directory, program.environment) as proxy:
        yield proxy


@contextlib.contextmanager
def haproxy(root: Path, origin_port: int) -> Generator[Proxy]:
    """Run HAProxy with two threads."""
    program = packages.program("haproxy", "haproxy")
    directory, port = _directory(root, "haproxy"), _port()
    (directory / "haproxy.cfg").write_text(
        f"""global
  nbthread 2
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port 80
  default_backend b
backend b
  server origin {ORIGIN}:{origin_port} pool-max-conn 1024
""",
        encoding="utf-8",
    )
    command = [str(program.path), "-db", "-f", f"{directory}/haproxy.cfg"]
    with _running("haproxy", port, command, directory, program.environment) as proxy:
        yield proxy


@contextlib.contextmanager
def varnish(root: Path, origin_port: int) -> Generator[Proxy]:
    """Run Varnish: /cached is looked up, everything else passes."""
    program = packages.program("varnishd", "varnish")
    directory, port = _directory(root, "varnish"), _port()
    (directory / "bench.vcl").write_text(
        f"""vcl 4.1;
backend default {{ .host = "{ORIGIN}"; .port = "{origin_port}"; }}
sub vcl_recv {{
  set req.http.X-Forwarded-Proto = "http"; set req.http.X-Forwarded-Host = req.http.Host; set req.http.X-Forwarded-Port = "80";
  if (req.url !~ "^/cached") {{ return (pass); }}
}}
""",
        encoding="utf-8",
    )
    jail = ["-j", "none"]
    command = [str(program.path), "-F", *jail, "-a", f"127.0.0.1:{port}", "-T", "none", "-f", f"{directory}/bench.vcl"]
    command += ["-n", str(directory / "run"), "-s", "malloc,64m"]
    if program.root is not None:  # where it looks for its modules
        command += ["-p", f"vmod_path={program.root}/usr/lib/x86_64-linux-gnu/varnish/vmods"]
    with _running("varnish", port, command, directory, program.environment) as proxy:
        yield proxy


@contextlib.contextmanager
def envoy(root: Path, origin_port: int) -> Generator[Proxy]:
    """Run Envoy with two workers and one static route."""
    program = packages.envoy()
    directory, port = _directory(root, "envoy"), _port()
    typed = "type.googleapis.com/envoy.extensions"
    (directory / "envoy.yaml").write_text(
        f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {typed}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: origin}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": {typed}.filters.http.router.v3.Router}}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}}]}}
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ORIGIN}, port_value: {origin_port}}}}}}}
""",
        encoding="utf-8",
    )
    command = [str(program.path), "-c", f"{directory}/envoy.yaml", "--concurrency", "2", "--disable-hot-restart", "-l", "error"]
    with _running("envoy", port, command, directory, program.environment) as proxy:
        yield proxy


_LUA = """-- A route looked up in Redis for each request: nine round trips, as Apache's own ingress controller makes.
local ffi = require 'ffi'
ffi.cdef[[
int socket(int, int, int); int connect(int, const void *, unsigned); long send(int, const void *, size_t, int);
long recv(int, void *, size_t, int); int close(int);
struct sockaddr_un_ { unsigned short family; char path[108]; };
]]
local buffer = ffi.new('char[4096]')
local fd = -1
local function open()
  local address = ffi.new('struct sockaddr_un_')
  address.family = 1
  ffi.copy(address.path, 'SOCKET')
  fd = ffi.C.socket(1, 1, 0)
  if ffi.C.connect(fd, address, ffi.sizeof(address)) ~= 0 then ffi.C.close(fd); fd = -1 end
end
local function ask(command)
  if fd < 0 then open() end
  ffi.C.send(fd, command, #command, 0x4000)
  local n = ffi.C.recv(fd, buffer, 4096, 0)
  if n <= 0 then ffi.C.close(fd); fd = -1; return '' end
  return ffi.string(buffer, n)
end
function do_remap()
  local host = ts.client_request.header['Host'] or ''
  local path = ts.client_request.get_uri()
  ask('SELECT 1\\r\\n')
  for i = 1, 3 do ask('SMEMBERS E+http://' .. host .. path .. i .. '\\r\\n') end
  local service = ask('SRANDMEMBER E+http://' .. host .. '/\\r\\n'):match('\\r\\n([^\\r]+)') or ''
  ask('SELECT 0\\r\\n')
  ask('SMEMBERS S+' .. service .. '\\r\\n')
  ask('SMEMBERS P+' .. service .. '\\r\\n')
  local address = ask('SRANDMEMBER ' .. service .. '\\r\\n'):match('\\r\\n([^\\r]+)')
  if address == nil then return 0 end
  local ip, port = address:match('([^#]+)#(%d+)')
  ts.client_request.set_url_scheme('http')
  ts.client_request.set_url_host(ip)
  ts.client_request.set_url_port(tonumber(port))
  return TS_LUA_REMAP_DID_REMAP
end
"""


@contextlib.contextmanager
def lua_redis(root: Path, origin_port: int, *, n_hosts: int, records: Mapping[str, str | int | float]) -> Generator[Proxy]:
    """Run Traffic Server with tslua, which asks Redis for each request; the CPU of both counts."""
    program = packages.program("redis-server", "redis-server")
    directory = _directory(root, "redis")
    directory.chmod(0o755)
    path = directory / "redis.sock"
    command = [str(program.path), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "777"]
    command += ["--save", "", "--dir", str(directory)]
    child = processes.start(LOOPBACK, command, name="redis", log_path=directory / "redis.log", env=program.environment)
    with processes.running(child):
        child.await_ready("redis listens", path.exists)
        _fill_redis(path, n_hosts, origin_port)
        remap = ["map / http://localhost/ @plugin=tslua.so @pparam=--states=8 @pparam=ETC/redis.lua"]
        files = {"redis.lua": _LUA.replace("SOCKET", str(path))}
        with traffic_server.running("lua+redis", root / "lua", remap=remap, files=files, records=records) as proxy:
            yield Proxy(name=proxy.name, port=proxy.port, pids=(*proxy.pids, child.pid))


def _fill_redis(path: Path, n_hosts: int, origin_port: int) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        commands = [f"SADD service {ORIGIN}#{origin_port}", "SELECT 1"]
        commands += [f"SADD E+http://h{i}.bench.example/ service" for i in range(n_hosts)]
        connection.sendall("".join(f"{command}\r\n" for command in commands).encode())
        answers = b""
        while answers.count(b"\r\n") < len(commands):
            answers += connection.recv(65536)
