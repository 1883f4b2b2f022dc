/*
 * The origin behind every proxy that is measured: as cheap as a server can be, so that the proxy's cost is what shows.
 *
 * usage: origin PORT
 * Listens on every address, at any free port if PORT is 0, and then says "port N".  Each answer's body says the address that the
 * connection came to, so that a client sees which pod of a Service answered.  Paths that start with /cached are fresh for an hour,
 * nothing else may be kept.  One thread, epoll, GET alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BODY = 100, REQUEST_MAX = 8192, ANSWER_MAX = 512, EVENTS = 64, BACKLOG = 4096 };

struct client {
  int fd;
  size_t n_in;
  size_t n_answer[2]; /* 0: not to be kept, 1: cacheable */
  char answer[2][ANSWER_MAX];
  char in[REQUEST_MAX];
};

static void
answers_make(struct client *c)
{
  struct sockaddr_in here  = {0};
  socklen_t len            = sizeof here;
  char ip[INET_ADDRSTRLEN] = "?";
  char name[64];
  if (getsockname(c->fd, (struct sockaddr *)&here, &len) == 0) {
    (void)inet_ntop(AF_INET, &here.sin_addr, ip, sizeof ip);
  }
  (void)snprintf(name, sizeof name, "%s:%u", ip, (unsigned)ntohs(here.sin_port));
  static const char *const cache_control[2] = {"no-store", "public, max-age=3600"};
  for (int i = 0; i < 2; i++) {
    int n          = snprintf(c->answer[i], ANSWER_MAX,
                              "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nCache-Control: %s\r\n\r\n%-*s\n", BODY,
                              cache_control[i], BODY - 1, name);
    c->n_answer[i] = (size_t)n;
  }
}

static void
client_close(struct client *c)
{
  (void)close(c->fd);
  free(c);
}

/* Answers every whole request in the buffer.  False: the connection is no good any more. */
static bool
client_answer(struct client *c)
{
  char *at = c->in;
  for (;;) {
    size_t left = c->n_in - (size_t)(at - c->in);
    char *end   = memmem(at, left, "\r\n\r\n", 4);
    if (end == NULL) {
      memmove(c->in, at, left);
      c->n_in = left;
      return left < REQUEST_MAX;
    }
    char *space = memchr(at, ' ', (size_t)(end - at));
    int cached  = space != NULL && strncmp(space + 1, "/cached", 7) == 0;
    ssize_t n   = send(c->fd, c->answer[cached], c->n_answer[cached], MSG_NOSIGNAL);
    if (n != (ssize_t)c->n_answer[cached]) {
      return false;
    }
    at = end + 4;
  }
}

static bool
client_readable(struct client *c)
{
  for (;;) {
    ssize_t n = recv(c->fd, c->in + c->n_in, REQUEST_MAX - c->n_in, MSG_DONTWAIT);
    if (n < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    if (n == 0) {
      return false;
    }
    c->n_in += (size_t)n;
    if (!client_answer(c)) {
      return false;
    }
    if (c->n_in == 0) {
      return true; /* level triggered: what comes later wakes us again */
    }
  }
}

static void
client_accept(int epoll, int listener)
{
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    return;
  }
  int one = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct client *c = calloc(1, sizeof *c);
  if (c == NULL) {
    (void)close(fd);
    return;
  }
  c->fd = fd;
  answers_make(c);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    client_close(c);
  }
}

static int
listener_open(unsigned port)
{
  int one                = 1;
  int fd                 = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_ANY)};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(fd, (const struct sockaddr *)&any, sizeof any) != 0 || listen(fd, BACKLOG) != 0) {
    perror("origin: cannot listen");
    exit(1);
  }
  return fd;
}

static void
port_say(int listener)
{
  struct sockaddr_in here = {0};
  socklen_t len           = sizeof here;
  if (getsockname(listener, (struct sockaddr *)&here, &len) != 0) {
    perror("origin: getsockname");
    exit(1);
  }
  (void)printf("port %u\n", (unsigned)ntohs(here.sin_port));
  (void)fflush(stdout);
}

int
main(int argc, char **argv)
{
  char *end          = NULL;
  unsigned long port = argc == 2 ? strtoul(argv[1], &end, 10) : 0;
  if (end == NULL || end == argv[1] || *end != '\0' || port > 65535) {
    (void)fprintf(stderr, "usage: origin PORT\n");
    return 2;
  }
  (void)signal(SIGPIPE, SIG_IGN);
  int listener = listener_open((unsigned)port);
  port_say(listener);
  int epoll                = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) {
    perror("origin: epoll");
    return 1;
  }
  for (;;) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
      struct client *c = events[i].data.ptr;
      if (c == NULL) {
        client_accept(epoll, listener);
      } else if (!client_readable(c)) {
        client_close(c);
      }
    }
  }
}
