/* See slow_headers.h. */
#include "hooks/slow_headers.h"

#include "controller/stats.h"
#include "hooks/deadlines.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/tcp.h> /* the C library's struct tcp_info lacks tcpi_bytes_received and tcpi_bytes_sent */

#define PERIODS 12u /* looks at a connection in the limit's time, but for these bounds */
#define PERIOD_MIN_MS 500u
#define PERIOD_MAX_MS 5000u
#define SLICE_LOOKED_MAX 4096 /* connections that one event looks at: tens of microseconds; the next goes on after SLICE_PAUSE_MS */
#define SLICE_ASKED_MAX 512   /* of which the kernel is asked: half a millisecond */
#define SLICE_PAUSE_MS 10u

struct home;

/* An HTTP/1 connection.  Requests are counted from 1 on, by Traffic Server. */
struct connection {
  struct connection *next;  /* of its home's, or of the spare ones */
  struct connection **link; /* what points at it */
  struct home *home;
  TSHttpSsn ssn;
  uint64_t mark_ms; /* when request n_marked was first seen without its header */
  uint64_t received, sent;
  int n_whole;  /* the last request whose header is whole */
  int n_marked; /* 0: none */
  bool is_measured;
};

/* A thread's connections.  The lock is the thread's own nearly always: sessions begin and end on their connection's thread, unless another
 * plugin goes on with one from another thread, which Traffic Server allows. */
struct home {
  pthread_mutex_t lock;
  struct connection *first;
  struct connection *cursor; /* where the present round goes on; NULL: it is over */
  struct connection *spares;
};

static __thread struct home *mine; /* __thread: in C and C++ alike */

static struct {
  uint64_t limit_ms; /* 0: not begun */
  uint64_t period_ms;
  int arg; /* a session's user argument: its connection */
} slow;    /* written once, before the first session that is hooked */

/* --- looking --------------------------------------------------------------------------------------------------------------------- */

/* Bytes that came and that went, since the connection was made.  False: a kernel before 4.19. */
static bool
measure(int fd, uint64_t *received, uint64_t *sent)
{
  struct tcp_info info;
  socklen_t len = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
      len < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof info.tcpi_bytes_retrans) {
    return false;
  }
  *received = info.tcpi_bytes_received;
  *sent     = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
  return true;
}

/* The header was not whole a round ago, nor is it now: cuts what has had its time. */
static void
header_judge(struct connection *connection, uint64_t now_ms)
{
  int fd            = -1;
  uint64_t received = 0, sent = 0;
  if (TSHttpSsnClientFdGet(connection->ssn, &fd) != TS_SUCCESS || fd < 0 || !measure(fd, &received, &sent)) {
    return;
  }
  const bool is_fed       = connection->is_measured && received != connection->received;
  const bool is_answered  = connection->is_measured && sent != connection->sent;
  connection->received    = received;
  connection->sent        = sent;
  connection->is_measured = true;
  if (is_answered) {
    connection->n_whole = connection->n_marked;
  } else if (is_fed && now_ms - connection->mark_ms >= slow.limit_ms) {
    connection->n_whole = connection->n_marked; /* once is enough */
    (void)shutdown(fd, SHUT_RDWR);              /* Traffic Server sees its end, and closes it in its own order */
    atsk_count(ATSK_COUNT_HEADERS_CUT);
  }
}

/* True: the kernel was asked. */
static bool
connection_look(struct connection *connection, uint64_t now_ms)
{
  bool was_asked = false;
  TSMutex mutex  = TSContMutexGet((TSCont)connection->ssn);
  if (mutex == NULL || TSMutexLockTry(mutex) != TS_SUCCESS) {
    return false; /* somebody is at it: not now */
  }
  const int n = TSHttpSsnTransactionCount(connection->ssn);
  if (n == connection->n_whole) {
    connection->n_marked = 0;
  } else if (n != connection->n_marked) {
    connection->n_marked    = n;
    connection->mark_ms     = now_ms;
    connection->is_measured = false;
  } else {
    header_judge(connection, now_ms);
    was_asked = true;
  }
  TSMutexUnlock(mutex);
  return was_asked;
}

/* A part of a round.  True: it is over. */
static bool
home_look(struct home *home)
{
  const uint64_t now_ms = atsk_deadlines_now_ms();
  int n_asked           = 0;
  pthread_mutex_lock(&home->lock);
  if (home->cursor == NULL) {
    home->cursor = home->first;
  }
  for (int n = 0; home->cursor != NULL && n < SLICE_LOOKED_MAX && n_asked < SLICE_ASKED_MAX; n++) {
    struct connection *connection = home->cursor;
    home->cursor                  = connection->next;
    n_asked += connection_look(connection, now_ms);
  }
  const bool is_over = home->cursor == NULL;
  pthread_mutex_unlock(&home->lock);
  return is_over;
}

/* Traffic Server's events go by the wall clock: a jump makes one come early or late, which only moves the looks. */
static int
on_look(TSCont contp, TSEvent event, void *edata)
{
  const bool is_over = home_look((struct home *)TSContDataGet(contp));
  (void)event, (void)edata;
  (void)TSContScheduleOnThread(contp, (TSHRTime)(is_over ? slow.period_ms : SLICE_PAUSE_MS), TSEventThreadSelf());
  return 0;
}

/* --- connections that come and go --------------------------------------------------------------------------------------------------- */

/* This thread's, which looks from now on; never freed. */
static struct home *
home_mine(void)
{
  if (mine == NULL) {
    mine = (struct home *)TSmalloc(sizeof *mine);
    memset(mine, 0, sizeof *mine);
    pthread_mutex_init(&mine->lock, NULL);
    TSCont cont = TSContCreate(on_look, TSMutexCreate()); /* an event needs one */
    TSContDataSet(cont, mine);
    (void)TSContScheduleOnThread(cont, (TSHRTime)slow.period_ms, TSEventThreadSelf());
  }
  return mine;
}

static void
connection_begin(TSHttpSsn ssn)
{
  struct home *home = home_mine();
  pthread_mutex_lock(&home->lock);
  struct connection *connection = home->spares;
  if (connection != NULL) {
    home->spares = connection->next;
  } else {
    connection = (struct connection *)TSmalloc(sizeof *connection);
  }
  memset(connection, 0, sizeof *connection);
  connection->home = home;
  connection->ssn  = ssn;
  connection->next = home->first;
  connection->link = &home->first;
  if (home->first != NULL) {
    home->first->link = &connection->next;
  }
  home->first = connection;
  pthread_mutex_unlock(&home->lock);
  TSUserArgSet(ssn, slow.arg, connection);
}

static void
connection_end(struct connection *connection)
{
  struct home *home = connection->home;
  pthread_mutex_lock(&home->lock);
  if (home->cursor == connection) {
    home->cursor = connection->next;
  }
  *connection->link = connection->next;
  if (connection->next != NULL) {
    connection->next->link = connection->link;
  }
  connection->next = home->spares;
  home->spares     = connection;
  pthread_mutex_unlock(&home->lock);
}

static int
on_session(TSCont contp, TSEvent event, void *edata)
{
  TSHttpSsn ssn = (TSHttpSsn)edata;
  (void)contp;
  if (event == TS_EVENT_HTTP_SSN_START) {
    int fd = -1; /* none: Traffic Server's own request to itself */
    if (TSHttpSsnClientProtocolStackContains(ssn, "h2") == NULL && TSHttpSsnClientFdGet(ssn, &fd) == TS_SUCCESS && fd >= 0) {
      connection_begin(ssn);
    }
  } else if (event == TS_EVENT_HTTP_SSN_CLOSE) {
    struct connection *connection = (struct connection *)TSUserArgGet(ssn, slow.arg);
    if (connection != NULL) {
      TSUserArgSet(ssn, slow.arg, NULL);
      connection_end(connection);
    }
  }
  TSHttpSsnReenable(ssn, TS_EVENT_HTTP_CONTINUE);
  return 0;
}

void
atsk_slow_headers_whole(TSHttpTxn txnp)
{
  if (slow.limit_ms == 0) {
    return;
  }
  TSHttpSsn ssn                 = TSHttpTxnSsnGet(txnp);
  struct connection *connection = ssn != NULL ? (struct connection *)TSUserArgGet(ssn, slow.arg) : NULL;
  if (connection != NULL) {
    connection->n_whole = TSHttpSsnTransactionCount(ssn);
  }
}

void
atsk_slow_headers_start(void)
{
  const uint64_t limit_ms = (uint64_t)atsk_deadlines_header_s() * 1000u;
  if (slow.limit_ms != 0 || limit_ms == 0 ||
      TSUserArgIndexReserve(TS_USER_ARGS_SSN, "atsk8s", "whether a request's header is whole", &slow.arg) != TS_SUCCESS) {
    return;
  }
  const uint64_t period_ms = limit_ms / PERIODS;
  slow.period_ms           = period_ms < PERIOD_MIN_MS ? PERIOD_MIN_MS : period_ms > PERIOD_MAX_MS ? PERIOD_MAX_MS : period_ms;
  slow.limit_ms            = limit_ms;
  TSCont sessions          = TSContCreate(on_session, NULL); /* no mutex: a session's own serialises its hooks */
  TSHttpHookAdd(TS_HTTP_SSN_START_HOOK, sessions);
  TSHttpHookAdd(TS_HTTP_SSN_CLOSE_HOOK, sessions);
}
