/*
 * TLS handshakes, one after another, as a client of many hosts.
 *
 * usage: handshakes IP PORT VERSION full|resumed SECONDS HOSTS STRIDE     (VERSION 1.2 or 1.3; host i is h<i*STRIDE>.bench.example)
 * Says "ready", waits for a byte on stdin, works, and prints {"handshakes": N, "resumed": N, "seconds": S, "max_ms": M}, the
 * longest handshake being that from connect to its end.  With `resumed`, each
 * host's session is fetched by one request before it is ready, and offered in every later handshake of that host.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS_MAX = 10000 };

static SSL_CTX *ctx;
static struct sockaddr_in to;
static SSL_SESSION *sessions[HOSTS_MAX];
static int at; /* the host that is being asked */

static void
fail(const char *what)
{
  (void)fprintf(stderr, "handshakes: host %d: %s\n", at, what);
  ERR_print_errors_fp(stderr);
  exit(1);
}

static double
now_s(void)
{
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int
on_session(SSL *ssl, SSL_SESSION *session)
{
  (void)ssl;
  SSL_SESSION_free(sessions[at]);
  sessions[at] = session;
  return 1; /* ours now */
}

/* One connection to host `at`.  With `ask`, a request too, whose answer brings TLS 1.3's tickets. */
static bool
connect_once(int stride, bool ask, bool offer)
{
  char name[64];
  int one = 1;
  int fd  = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
    fail("no connection");
  }
  struct timeval patience = {.tv_sec = 10};
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  SSL *ssl = SSL_new(ctx);
  (void)snprintf(name, sizeof name, "h%d.bench.example", at * stride);
  if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_set_tlsext_host_name(ssl, name) != 1) {
    fail("no SSL");
  }
  if (offer && sessions[at] != NULL) {
    (void)SSL_set_session(ssl, sessions[at]);
  }
  if (SSL_connect(ssl) != 1) {
    fail("no handshake");
  }
  bool resumed = SSL_session_reused(ssl) == 1;
  if (ask) {
    char buffer[4096];
    int n = snprintf(buffer, sizeof buffer, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name);
    if (SSL_write(ssl, buffer, n) != n || SSL_read(ssl, buffer, sizeof buffer) <= 0) {
      fail("no answer");
    }
  }
  (void)SSL_shutdown(ssl); /* else the session is marked as not to be resumed */
  struct linger linger = {.l_onoff = 1, .l_linger = 0};
  if (!ask) { /* no TIME_WAIT: the ports would run out */
    char drain[256];
    (void)SSL_read(ssl, drain, sizeof drain);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
  }
  SSL_free(ssl);
  (void)close(fd);
  return resumed;
}

int
main(int argc, char **argv)
{
  if (argc != 8) {
    (void)fprintf(stderr, "usage: handshakes IP PORT 1.2|1.3 full|resumed SECONDS HOSTS STRIDE\n");
    return 2;
  }
  int version   = strcmp(argv[3], "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
  bool offer    = strcmp(argv[4], "resumed") == 0;
  double length = atof(argv[5]);
  int n_hosts   = atoi(argv[6]);
  int stride    = atoi(argv[7]);
  to            = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  ctx           = SSL_CTX_new(TLS_client_method());
  if (ctx == NULL || n_hosts < 1 || n_hosts > HOSTS_MAX || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
    fail("bad arguments");
  }
  (void)SSL_CTX_set_min_proto_version(ctx, version);
  (void)SSL_CTX_set_max_proto_version(ctx, version);
  (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(ctx, on_session);
  for (at = 0; offer && at < n_hosts; at++) {
    (void)connect_once(stride, true, false);
    if (sessions[at] == NULL) {
      fail("no session to resume");
    }
  }
  (void)puts("ready");
  (void)fflush(stdout);
  (void)getchar();
  long n = 0, n_resumed = 0;
  double began = now_s(), end = began + length, last = began, longest = 0;
  while (last < end) {
    at = (int)(n % n_hosts);
    n_resumed += connect_once(stride, false, offer);
    n++;
    double done = now_s();
    longest     = done - last > longest ? done - last : longest;
    last        = done;
  }
  printf("{\"handshakes\": %ld, \"resumed\": %ld, \"seconds\": %.6f, \"max_ms\": %.3f}\n", n, n_resumed, last - began,
         longest * 1e3);
  return 0;
}
