/* See txn.h.  Order in the remap hook: health path, host, path, match, pick, rewrite.  Nothing here takes a lock, and nothing borrowed
 * from the table outlives the read section: the transaction holds its pick, and copies of addresses. */
#include "txn.h"

#include "cache_key.h"
#include "controller.h"
#include "endpoints.h"
#include "forwarded.h"
#include "incoming.h"
#include "match.h"
#include "next_hop.h"
#include "request.h"
#include "respond.h"
#include "stats.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What a forwarded transaction keeps until it closes, and the continuation of its hooks, whose data it is: asking for a user argument
 * instead costs a dynamic_cast each time.  A pair goes from one transaction to the next and is never freed, since destroying a continuation
 * takes an event. */
struct txn {
  struct txn *next; /* of the spare ones */
  TSCont cont;
  TSEvent later; /* what to go on with, in reenable_later() */
  TSHttpTxn txnp;
  struct atsk_pick pick;
  struct atsk_next_hop hop;
  struct atsk_forwarded forwarded;
  uint32_t attempts; /* begun so far; attempt k is at choice k modulo pick.n */
  bool is_safe;      /* RFC 9110 section 9.2.1: may be sent again, whatever became of it */
  bool is_guarded;   /* an attempt that may be the last is looked at */
  bool is_lone;      /* has one choice, and is guarded only once that has failed: each hook costs a thousand instructions */
};

/* Spare ones, each thread's own: a transaction stays on its client connection's thread, so a list is as long as that thread has ever had
 * transactions at once. */
static __thread struct txn *spares; /* __thread: in C and C++ alike */

static int on_txn(TSCont contp, TSEvent event, void *edata);

static struct txn *
txn_take(void)
{
  struct txn *txn = spares;
  if (txn != NULL) {
    spares = txn->next;
    return txn;
  }
  txn       = (struct txn *)TSmalloc(sizeof *txn);
  txn->cont = TSContCreate(on_txn, NULL); /* no mutex: the transaction's own serialises its hooks */
  TSContDataSet(txn->cont, txn);
  return txn;
}

static void
txn_give(struct txn *txn)
{
  txn->next = spares;
  spares    = txn;
}

static void
failure_count(TSHttpTxn txnp)
{
  switch (TSHttpTxnServerStateGet(txnp)) {
  case TS_SRVSTATE_CONNECTION_ERROR:
  case TS_SRVSTATE_OPEN_RAW_ERROR:
    atsk_count(ATSK_COUNT_ENDPOINT_FAILURES_CONNECT);
    break;
  case TS_SRVSTATE_ACTIVE_TIMEOUT:
  case TS_SRVSTATE_INACTIVE_TIMEOUT:
    atsk_count(ATSK_COUNT_ENDPOINT_FAILURES_TIMEOUT);
    break;
  default:
    atsk_count(ATSK_COUNT_ENDPOINT_FAILURES_OTHER);
    break;
  }
}

/* --- the hooks of a forwarded transaction -------------------------------------------------------------------------------------- */

static int
on_later(TSCont contp, TSEvent event, void *edata)
{
  struct txn *txn = (struct txn *)TSContDataGet(contp);
  (void)event, (void)edata;
  TSContDestroy(contp);
  TSHttpTxnReenable(txn->txnp, txn->later);
  return 0;
}

/* Goes on when this thread is back in its event loop.  A connect() that fails at once (a node's own route says unreachable) calls the
 * state machine from inside UnixNetVConnection::connectUp, with its socket closed already: the next attempt's socket would get the same
 * number, and connectUp, going on, take just that out of epoll.  Nothing would be heard of it but the connect timeout. */
static void
reenable_later(TSHttpTxn txnp, struct txn *txn, TSEvent event)
{
  TSCont later = TSContCreate(on_later, TSMutexCreate()); /* an event needs one; it goes with the continuation */
  txn->txnp    = txnp;
  txn->later   = event;
  TSContDataSet(later, txn);
  (void)TSContScheduleOnThread(later, 0, TSEventThreadSelf());
}

/* Looks at what becomes of the attempt to come, too: others end in a pod's answer or in another attempt. */
static void
attempt_guard(TSHttpTxn txnp, struct txn *txn)
{
  if (!txn->is_guarded) {
    TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_RESPONSE_HDR_HOOK, txn->cont);
    txn->is_guarded = true;
  }
}

/* What Traffic Server answers when there is no next hop (HttpTransact::handle_parent_died). */
static TSHttpStatus
failure_status(TSHttpTxn txnp)
{
  switch (TSHttpTxnServerStateGet(txnp)) {
  case TS_SRVSTATE_ACTIVE_TIMEOUT:
  case TS_SRVSTATE_INACTIVE_TIMEOUT:
    return TS_HTTP_STATUS_GATEWAY_TIMEOUT;
  case TS_SRVSTATE_OUTBOUND_CONGESTION:
    return TS_HTTP_STATUS_SERVICE_UNAVAILABLE;
  default:
    return TS_HTTP_STATUS_BAD_GATEWAY;
  }
}

/* Ends a request that had one choice and went unguarded. */
static void
attempt_refuse(TSHttpTxn txnp, struct txn *txn)
{
  attempt_guard(txnp, txn); /* counts the failure, and says it in our words */
  TSHttpTxnStatusSet(txnp, failure_status(txnp));
  reenable_later(txnp, txn, TS_EVENT_HTTP_ERROR);
}

/* TS_HTTP_OS_DNS_HOOK: maybe once for the URL's own host, before a next hop is chosen, and then before every attempt.  True if another
 * one has failed before: the transaction goes on later then. */
static bool
attempt_begin(TSHttpTxn txnp, struct txn *txn)
{
  if (TSHttpTxnNextHopAddrGet(txnp) == NULL) {
    return false;
  }
  uint32_t attempt = txn->attempts++;
  if (attempt == 0 && txn->is_lone) { /* its action names it still, so it fails into this hook; with luck, into none */
    return false;
  }
  if (attempt == 1 && txn->is_lone && TSHttpTxnServerSsnTransactionCount(txnp) <= 1) { /* see attempt_connected() */
    attempt_refuse(txnp, txn);
    return true;
  }
  if (attempt > 0) {
    failure_count(txnp);
    atsk_count(ATSK_COUNT_RETRIES);
    atsk_pick_advance(&txn->pick, attempt % txn->pick.n);
  }
  const bool is_last = attempt + 1 >= txn->pick.n;
  if (is_last) {
    atsk_next_hop_none(txnp, &txn->hop);
  } else {
    atsk_next_hop_set(txnp, &txn->hop, &txn->pick, attempt + 1);
  }
  if (is_last || !txn->is_safe) {
    attempt_guard(txnp, txn);
  }
  if (attempt > 0) {
    reenable_later(txnp, txn, TS_EVENT_HTTP_CONTINUE);
  }
  return attempt > 0;
}

/* TS_HTTP_SEND_REQUEST_HDR_HOOK: connected, nothing sent yet.  False: nothing may be sent. */
static bool
attempt_connected(TSHttpTxn txnp, struct txn *txn)
{
  if (atsk_next_hop_is_refused(txnp, &txn->hop, atsk_settings_view()->allow_loopback_names)) {
    return false;
  }
  atsk_forwarded_add(txnp, &txn->forwarded);
  /* The last choice, on a connection from the pool: the pod may close it this very moment, as it may any idle one, and would answer
   * on a fresh one.  Without this, a Service with one pod loses such a request. */
  if (txn->is_guarded && txn->attempts >= txn->pick.n && txn->attempts < ATSK_TRIES_MAX &&
      TSHttpTxnServerSsnTransactionCount(txnp) > 1) {
    atsk_next_hop_set(txnp, &txn->hop, &txn->pick, txn->attempts % txn->pick.n);
  }
  return true;
}

/* TS_HTTP_READ_RESPONSE_HDR_HOOK, with --cache=on: an answer that sets a cookie is one client's, whatever freshness it claims. */
static void
answer_read(TSHttpTxn txnp)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnServerRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return;
  }
  TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, TS_MIME_FIELD_SET_COOKIE, TS_MIME_LEN_SET_COOKIE);
  if (field != TS_NULL_MLOC) {
    (void)TSHttpTxnServerRespNoStoreSet(txnp, 1);
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
}

static int
on_txn(TSCont contp, TSEvent event, void *edata)
{
  TSHttpTxn txnp   = (TSHttpTxn)edata;
  struct txn *txn  = (struct txn *)TSContDataGet(contp);
  TSEvent reenable = TS_EVENT_HTTP_CONTINUE;
  switch (event) {
  case TS_EVENT_HTTP_OS_DNS:
    if (attempt_begin(txnp, txn)) {
      return 0;
    }
    break;
  case TS_EVENT_HTTP_SEND_REQUEST_HDR:
    if (!attempt_connected(txnp, txn)) {
      TSHttpTxnStatusSet(txnp, TS_HTTP_STATUS_BAD_GATEWAY);
      reenable = TS_EVENT_HTTP_ERROR;
    }
    break;
  case TS_EVENT_HTTP_READ_RESPONSE_HDR:
    answer_read(txnp);
    break;
  case TS_EVENT_HTTP_SEND_RESPONSE_HDR:
    if (atsk_respond_replace_error(txnp)) {
      failure_count(txnp);
    }
    break;
  case TS_EVENT_HTTP_TXN_CLOSE:
    atsk_pick_release(&txn->pick);
    txn_give(txn); /* before the call below, which may begin the connection's next request */
    break;
  default:
    break;
  }
  TSHttpTxnReenable(txnp, reenable);
  return 0;
}

enum atsk_status
atsk_txn_init(char *why, size_t why_size)
{
  if (atsk_respond_init() != ATSK_OK) {
    (void)snprintf(why, why_size, "getrandom(2) gave no random bytes");
    return ATSK_E_STATE;
  }
  return ATSK_OK;
}

/* --- forwarding -------------------------------------------------------------------------------------------------------------- */

/* A pod answers on a connection that is its own for anything but GET, HEAD and OPTIONS: an idle one from the pool may be closed by the
 * pod this very moment, and what is not safe to send twice would be lost with it (502). */
static void
method_prepare(TSHttpTxn txnp, TSRemapRequestInfo *rri, struct txn *txn)
{
  int len            = 0;
  const char *method = TSHttpHdrMethodGet(rri->requestBufp, rri->requestHdrp, &len); /* ATS's own constant, if it is a known one */
  txn->is_safe       = method == TS_HTTP_METHOD_GET || method == TS_HTTP_METHOD_HEAD || method == TS_HTTP_METHOD_OPTIONS;
  if (txn->is_safe) {
    return;
  }
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_SERVER_SESSION_SHARING_MATCH, 0);
  if (method == TS_HTTP_METHOD_POST || method == TS_HTTP_METHOD_PUT) {
    atsk_incoming_complete_length(txnp, rri);
  }
}

/* What correctness needs whatever records.config says. */
static void
records_override(TSHttpTxn txnp, const struct atsk_settings *settings)
{
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_UNCACHEABLE_REQUESTS_BYPASS_PARENT, 0); /* the action holds for every request */
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_PER_PARENT_CONNECT_ATTEMPTS, 1);
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_PARENT_FAILURES_UPDATE_HOSTDB, 0); /* one refusal says nothing about later requests */
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_PARENT_PROXY_TOTAL_CONNECT_ATTEMPTS, (TSMgmtInt)ATSK_TRIES_MAX);
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_URL_REMAP_PRISTINE_HOST_HDR, 1); /* pods get the client's Host */
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_INSERT_SQUID_X_FORWARDED_FOR, 1);
  if (!settings->cache) {
    TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_CACHE_HTTP, 0);
  }
  TSHttpTxnConnectTimeoutSet(txnp, (int)settings->connect_timeout_ms);
}

/* Takes the pick. */
static void
forward(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_incoming *in, const struct atsk_pick *pick)
{
  const struct atsk_settings *settings = atsk_settings_view();
  struct txn *txn                      = txn_take();
  txn->pick                            = *pick;
  txn->attempts                        = 0;
  txn->is_guarded                      = false;
  TSHttpTxnHookAdd(txnp, TS_HTTP_OS_DNS_HOOK, txn->cont);
  TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_REQUEST_HDR_HOOK, txn->cont);
  TSHttpTxnHookAdd(txnp, TS_HTTP_TXN_CLOSE_HOOK, txn->cont);
  atsk_next_hop_begin(txnp, rri, &txn->pick, &txn->hop);
  records_override(txnp, settings);
  if (settings->cache) {
    TSHttpTxnHookAdd(txnp, TS_HTTP_READ_RESPONSE_HDR_HOOK, txn->cont);
    atsk_cache_key_set(txnp, in);
  }
  method_prepare(txnp, rri, txn);
  /* Of a cache, a stale answer would have to be served: Traffic Server does that where it finds no next hop. */
  txn->is_lone = pick->n == 1 && txn->is_safe && !txn->hop.is_name && !settings->cache;
  /* Last: it moves the header's strings, which the view borrows. */
  atsk_forwarded_take(txnp, rri->requestBufp, rri->requestHdrp, in->authority, in->host.port, settings, &txn->forwarded);
  atsk_count(ATSK_COUNT_REQUESTS_FORWARDED);
}

/* --- the decision ------------------------------------------------------------------------------------------------------------- */

/* What becomes of a request; ours are answered with the text. */
struct answer {
  TSHttpStatus status; /* TS_HTTP_STATUS_NONE: forward */
  enum atsk_counter counter;
  const char *text;
};

static const struct answer answer_forward   = {TS_HTTP_STATUS_NONE, ATSK_COUNT_REQUESTS_FORWARDED, ""};
static const struct answer answer_healthy   = {TS_HTTP_STATUS_OK, ATSK_COUNT_REQUESTS_HEALTH, "ready"};
static const struct answer answer_unhealthy = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_HEALTH, "not ready"};
static const struct answer answer_no_table  = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_NOT_READY,
                                               "This proxy is starting and has no routes yet."};
static const struct answer answer_bad_host  = {TS_HTTP_STATUS_BAD_REQUEST, ATSK_COUNT_REQUESTS_BAD,
                                               "The request names no valid host."};
static const struct answer answer_bad_path  = {TS_HTTP_STATUS_BAD_REQUEST, ATSK_COUNT_REQUESTS_BAD,
                                               "The request's path is not valid."};
static const struct answer answer_long_path = {TS_HTTP_STATUS_REQUEST_URI_TOO_LONG, ATSK_COUNT_REQUESTS_BAD,
                                               "The request's path is too long."};
static const struct answer answer_no_host   = {TS_HTTP_STATUS_NOT_FOUND, ATSK_COUNT_REQUESTS_NO_HOST,
                                               "Nothing is served at this host."};
static const struct answer answer_no_path   = {TS_HTTP_STATUS_NOT_FOUND, ATSK_COUNT_REQUESTS_NO_PATH,
                                               "Nothing is served at this path."};
static const struct answer answer_no_pod    = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_NO_ENDPOINT,
                                               "The service behind this address has no endpoint that is ready."};

static struct answer
answer_of(enum atsk_request_fault fault)
{
  switch (fault) {
  case ATSK_REQUEST_FINE:
    return answer_forward;
  case ATSK_REQUEST_BAD_HOST:
    return answer_bad_host;
  case ATSK_REQUEST_LONG_PATH:
    return answer_long_path;
  case ATSK_REQUEST_BAD_PATH:
  default:
    return answer_bad_path;
  }
}

static bool
has_encoded_slash(struct atsk_str path)
{
  return path.len >= 3 && memmem(path.ptr, path.len, "%2F", 3) != NULL; /* normalised: escapes are upper case */
}

/* Inside the caller's read section.  With answer_forward, *pick is held. */
static struct answer
decide(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_table *table, struct atsk_incoming *in, struct atsk_pick *pick)
{
  const struct atsk_settings *settings = atsk_settings_view();
  struct answer answer                 = answer_of(atsk_incoming_path(txnp, in));
  if (answer.status != TS_HTTP_STATUS_NONE) {
    return answer;
  }
  if (in->raw_path.len == settings->health_path_len && memcmp(in->raw, settings->health_path, settings->health_path_len) == 0) {
    return atsk_controller_ready() ? answer_healthy : answer_unhealthy;
  }
  answer = answer_of(atsk_incoming_host(txnp, rri, in));
  if (answer.status != TS_HTTP_STATUS_NONE) {
    return answer;
  }
  answer = answer_of(atsk_path_normalise(in->raw_path, in->room, &in->path));
  if (answer.status != TS_HTTP_STATUS_NONE) {
    return answer;
  }
  if (settings->reject_encoded_slash && has_encoded_slash(in->path)) {
    return answer_bad_path;
  }
  struct atsk_str host    = {in->host.bytes, in->host.len};
  struct atsk_match match = atsk_match_request(table, atsk_incoming_port(txnp), host, in->path);
  if (match.kind != ATSK_MATCH_RULE) {
    return match.kind == ATSK_MATCH_NO_HOST ? answer_no_host : answer_no_path;
  }
  struct atsk_service *service = atsk_match_service(&match, atsk_request_number(txnp));
  return service != NULL && atsk_service_pick(service, pick) == ATSK_OK ? answer_forward : answer_no_pod;
}

TSRemapStatus
atsk_txn_remap(TSHttpTxn txnp, TSRemapRequestInfo *rri)
{
  struct atsk_incoming in;
  struct atsk_pick pick;
  const struct atsk_table *table = atsk_read_begin();
  struct answer answer           = table != NULL ? decide(txnp, rri, table, &in, &pick) : answer_no_table;
  atsk_read_end();
  if (answer.status == TS_HTTP_STATUS_NONE) {
    forward(txnp, rri, &in, &pick);
    return TSREMAP_DID_REMAP; /* plugins after us in the rule go on */
  }
  atsk_count(answer.counter);
  atsk_respond(txnp, answer.status, answer.text);
  return TSREMAP_NO_REMAP_STOP;
}
