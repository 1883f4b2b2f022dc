/* See deadlines.h. */
#include "hooks/deadlines.h"

#include "controller/stats.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#define SLACK_S 5u /* by which the client's side waits longer than the pod's, so that a silent pod is a 504 and not a cut */
#define FOREVER_S \
  100000000u /* three years: an HTTP/2 stream takes 0 as "as before" (NetTimeout.h), a connection as a day (net.default_inactivity_timeout) */
#define GRACE_MS 2500u  /* Traffic Server's own end comes first, where it comes */
#define CLIENT_MS 2000u /* for the end of the pod's connection to end the transaction */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES 6 /* 60 + 6 * 15 = ATSK_DEADLINES_DEAD_S */

static struct {
  uint32_t http1_s; /* transaction_no_activity_timeout_in; 0: none */
  uint32_t http2_s; /* http2.no_activity_timeout_in, of a connection with all its streams; 0: none */
} records;          /* written once, before the first request */

static uint32_t
record_read(const char *name)
{
  TSMgmtInt value = 0;
  return TSMgmtIntGet(name, &value) == TS_SUCCESS && value > 0 && value < INT32_MAX ? (uint32_t)value : 0;
}

void
atsk_deadlines_init(void)
{
  records.http1_s = record_read("proxy.config.http.transaction_no_activity_timeout_in");
  records.http2_s = record_read("proxy.config.http2.no_activity_timeout_in");
}

uint32_t
atsk_deadlines_header_s(void)
{
  return record_read("proxy.config.http.transaction_active_timeout_in");
}

static TSMgmtInt
seconds_or_forever(uint32_t limit_s)
{
  return (TSMgmtInt)(limit_s != 0 ? limit_s : FOREVER_S);
}

/* Is a record's clock the shorter one?  0 is none, of both. */
static bool
is_shorter(uint32_t record_s, uint32_t wanted_s)
{
  return record_s != 0 && (wanted_s == 0 || record_s < wanted_s);
}

/* The clock of the client's connection has begun with a record's value: sets it anew if that is too short.  An HTTP/2 stream's cannot be
 * reached; its connection's is, for good. */
static void
client_clock_set(TSHttpTxn txnp, uint32_t wanted_s)
{
  const bool is_http2 = TSHttpTxnClientProtocolStackContains(txnp, "h2") != NULL;
  if (!is_shorter(is_http2 ? records.http2_s : records.http1_s, wanted_s)) {
    return;
  }
  TSHttpSsn session = TSHttpTxnSsnGet(txnp);
  TSVConn client    = session != NULL ? TSHttpSsnClientVConnGet(session) : NULL;
  if (client != NULL) {
    TSVConnInactivityTimeoutSet(client, (TSHRTime)seconds_or_forever(wanted_s) * INT64_C(1000000000));
  }
}

static void
client_silence_set(TSHttpTxn txnp, uint32_t limit_s)
{
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_TRANSACTION_NO_ACTIVITY_TIMEOUT_IN, seconds_or_forever(limit_s));
}

void
atsk_deadlines_apply(TSHttpTxn txnp, const struct atsk_timeouts *timeouts, enum atsk_deadlines_kind kind)
{
  const uint32_t answer_s = atsk_timeouts_seconds(timeouts->read_ms, SLACK_S);
  TSHttpTxnConnectTimeoutSet(txnp, (int)timeouts->connect_ms);
  TSHttpTxnNoActivityTimeoutSet(txnp, (int)(timeouts->read_ms != 0 ? timeouts->read_ms : ATSK_TIMEOUT_MAX_MS));
  client_silence_set(txnp, kind == ATSK_DEADLINES_UPLOAD ? atsk_timeouts_seconds(timeouts->send_ms, 0) : answer_s);
  /* What records.config has bounds the header, and ends here. */
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_TRANSACTION_ACTIVE_TIMEOUT_IN,
                        seconds_or_forever(atsk_timeouts_seconds(timeouts->request_ms, SLACK_S)));
  if (timeouts->request_ms != 0) {
    TSHttpTxnActiveTimeoutSet(txnp, (int)timeouts->request_ms);
  }
  if (kind == ATSK_DEADLINES_TUNNEL) {
    TSHttpTxnConfigIntSet(txnp, TS_CONFIG_WEBSOCKET_NO_ACTIVITY_TIMEOUT, FOREVER_S);
    TSHttpTxnConfigIntSet(txnp, TS_CONFIG_WEBSOCKET_ACTIVE_TIMEOUT,
                          seconds_or_forever(atsk_timeouts_seconds(timeouts->request_ms, 0)));
  }
  if (is_shorter(records.http1_s, answer_s) || is_shorter(records.http2_s, answer_s)) {
    client_clock_set(txnp, answer_s);
  }
}

void
atsk_deadlines_attempt(TSHttpTxn txnp, uint32_t left_ms)
{
  if (left_ms != UINT32_MAX) {
    TSHttpTxnActiveTimeoutSet(txnp, (int)left_ms);
  }
}

void
atsk_deadlines_answer(TSHttpTxn txnp, const struct atsk_timeouts *timeouts)
{
  client_silence_set(txnp, atsk_timeouts_seconds(timeouts->read_ms, SLACK_S));
}

static void
keepalive_set(int fd)
{
  static const struct {
    int level, name, value;
  } options[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 1},
    {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
    {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
    {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
  };
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
    (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
  }
}

void
atsk_deadlines_tunnel_watch(TSHttpTxn txnp)
{
  int fd = -1;
  if (TSHttpTxnClientFdGet(txnp, &fd) == TS_SUCCESS && fd >= 0) {
    keepalive_set(fd);
  }
  if (TSHttpTxnServerFdGet(txnp, &fd) == TS_SUCCESS && fd >= 0) {
    keepalive_set(fd);
  }
}

/* --- one request's end -------------------------------------------------------------------------------------------------------------- */

static void
deadline_arm(struct atsk_deadline *deadline, uint64_t wait_ms)
{
  deadline->pending = TSContScheduleOnThread(deadline->cont, (TSHRTime)wait_ms, TSEventThreadSelf());
}

static void
client_cut(TSHttpTxn txnp)
{
  int fd = -1;
  if (TSHttpTxnClientProtocolStackContains(txnp, "h2") == NULL && TSHttpTxnClientFdGet(txnp, &fd) == TS_SUCCESS && fd >= 0) {
    (void)shutdown(fd, SHUT_RDWR);
  }
}

static void
pod_cut(TSHttpTxn txnp)
{
  int fd = -1;
  if (TSHttpTxnServerFdGet(txnp, &fd) == TS_SUCCESS && fd >= 0) {
    (void)shutdown(fd, SHUT_RDWR);
  }
}

static int
on_deadline(TSCont contp, TSEvent event, void *edata)
{
  struct atsk_deadline *deadline = (struct atsk_deadline *)TSContDataGet(contp);
  const uint64_t now_ms          = atsk_deadlines_now_ms();
  (void)event, (void)edata;
  deadline->pending = NULL;
  if (now_ms < deadline->end_ms) { /* the wall clock jumped, by which events go */
    deadline_arm(deadline, deadline->end_ms - now_ms);
    return 0;
  }
  pod_cut(deadline->txnp);
  if (deadline->is_over) {
    client_cut(deadline->txnp);
    return 0;
  }
  deadline->is_over = true;
  deadline->end_ms  = now_ms + CLIENT_MS;
  atsk_count(ATSK_COUNT_REQUESTS_CUT);
  deadline_arm(deadline, CLIENT_MS);
  return 0;
}

void
atsk_deadline_begin(struct atsk_deadline *deadline, TSHttpTxn txnp, uint32_t request_ms)
{
  const uint64_t wait_ms = (uint64_t)request_ms + GRACE_MS;
  if (deadline->cont == NULL) {
    deadline->cont = TSContCreate(on_deadline, TSMutexCreate()); /* an event needs one */
    TSContDataSet(deadline->cont, deadline);
  }
  deadline->txnp   = txnp;
  deadline->end_ms = atsk_deadlines_now_ms() + wait_ms;
  deadline_arm(deadline, wait_ms);
}

void
atsk_deadline_end(struct atsk_deadline *deadline)
{
  if (deadline->pending != NULL) {
    TSActionCancel(deadline->pending);
    deadline->pending = NULL;
  }
  deadline->is_over = false;
}

uint64_t
atsk_deadlines_now_ms(void)
{
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u + 1u;
}
