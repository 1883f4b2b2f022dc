/* See txn.h.  Nothing here takes a lock, and nothing borrowed from the table outlives the read section: the transaction holds its pick, its
 * limits, and copies of everything else. */
#include "hooks/txn.h"

#include "hooks/attempts.h"
#include "hooks/body_count.h"
#include "hooks/cache_key.h"
#include "policy/client_limits.h"
#include "controller/controller.h"
#include "hooks/deadlines.h"
#include "hooks/decision.h"
#include "hooks/forwarded.h"
#include "hooks/incoming.h"
#include "hooks/log_fields.h"
#include "hooks/next_hop.h"
#include "hooks/preference.h"
#include "table/publish.h"
#include "hooks/respond.h"
#include "hooks/slow_headers.h"
#include "controller/stats.h"

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
  struct atsk_attempts attempts;
  struct atsk_limits_hold hold;
  struct atsk_body_count body_count;
  struct atsk_deadline deadline;
  struct atsk_cookie *cookie; /* affinity's; NULL: none */
  struct atsk_forwarded forwarded;
  uint64_t count_max; /* bytes of a body that does not say its length; 0: not counted */
  bool is_upload;     /* with a body */
  bool is_cached;     /* --cache=on */
  bool is_logged;     /* --access-log-fields=on */
  struct atsk_log_fields log;
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
  txn = (struct txn *)TSmalloc(sizeof *txn);
  memset(&txn->deadline, 0, sizeof txn->deadline);
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

/* Looks at the answer, too. */
static void
guard(TSHttpTxn txnp, struct txn *txn)
{
  if (!txn->attempts.is_guarded) {
    TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_RESPONSE_HDR_HOOK, txn->cont);
    txn->attempts.is_guarded = true;
  }
}

/* TS_HTTP_OS_DNS_HOOK.  True: the transaction goes on later. */
static bool
attempt_begin(TSHttpTxn txnp, struct txn *txn)
{
  bool is_guard_due                        = false;
  const enum atsk_attempts_verdict verdict = atsk_attempts_next(&txn->attempts, txnp, atsk_settings_view(), &is_guard_due);
  if (is_guard_due) {
    guard(txnp, txn);
  }
  switch (verdict) {
  case ATSK_ATTEMPT_GO_LATER:
    reenable_later(txnp, txn, TS_EVENT_HTTP_CONTINUE);
    return true;
  case ATSK_ATTEMPT_END:
    TSHttpTxnStatusSet(txnp, atsk_attempts_status(txnp));
    reenable_later(txnp, txn, TS_EVENT_HTTP_ERROR);
    return true;
  case ATSK_ATTEMPT_GO:
  default:
    return false;
  }
}

/* TS_HTTP_SEND_REQUEST_HDR_HOOK: connected, nothing sent yet.  False: nothing may be sent. */
static bool
attempt_connected(TSHttpTxn txnp, struct txn *txn)
{
  if (!atsk_attempts_connected(&txn->attempts, txnp, atsk_settings_view())) {
    return false;
  }
  atsk_forwarded_add(txnp, &txn->forwarded);
  if (txn->count_max != 0) {
    atsk_body_count_begin(&txn->body_count, txnp, txn->count_max);
  }
  if (txn->attempts.hop.is_websocket) {
    atsk_deadlines_tunnel_watch(txnp);
  }
  return true;
}

/* With --cache=on: an answer that sets a cookie is one client's, whatever freshness it claims. */
static void
cookies_keep_out(TSHttpTxn txnp)
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

/* TS_HTTP_READ_RESPONSE_HDR_HOOK: a pod's answer, with --cache=on, a deadline, or where a status may be tried again.  False: it is none, but
 * the beginning of a header that was cut, which Traffic Server takes for a whole one. */
static bool
answer_read(TSHttpTxn txnp, struct txn *txn)
{
  if (txn->deadline.is_over) {
    return false;
  }
  if (txn->is_cached) {
    cookies_keep_out(txnp);
  }
  atsk_attempts_answered(&txn->attempts, txnp, atsk_settings_view());
  return true;
}

/* The cookie of the endpoint that has answered, unless the client has it already. */
static void
cookie_offer(TSHttpTxn txnp, struct txn *txn)
{
  const struct atsk_pick *pick = &txn->attempts.pick;
  const uint64_t tag           = atsk_pick_tag(pick, pick->current);
  if (pick->is_affine && pick->current == 0) {
    atsk_count(ATSK_COUNT_AFFINITY_KEPT);
  } else if (tag != 0) {
    atsk_count(ATSK_COUNT_AFFINITY_GIVEN);
    atsk_cookie_add(txnp, txn->cookie, tag);
  }
}

/* Is what goes out an error?  Once the deadline has cut the pod's connection no other is the pod's; a stale answer from the cache is none. */
static bool
is_error(TSHttpTxn txnp)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return false;
  }
  const TSHttpStatus status = TSHttpHdrStatusGet(bufp, hdr);
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  return status >= TS_HTTP_STATUS_INTERNAL_SERVER_ERROR || status == TS_HTTP_STATUS_REQUEST_TIMEOUT;
}

/* TS_HTTP_SEND_RESPONSE_HDR_HOOK, of a guarded transaction: an answer goes out, whosever it is. */
static void
answer_send(TSHttpTxn txnp, struct txn *txn)
{
  if (txn->body_count.is_too_large) {
    atsk_count(ATSK_COUNT_BODIES_CUT);
    atsk_respond_instead(txnp, TS_HTTP_STATUS_REQUEST_ENTITY_TOO_LARGE, "The request's body is too large.");
  } else if (txn->deadline.is_over && is_error(txnp)) {
    atsk_respond_instead(txnp, TS_HTTP_STATUS_GATEWAY_TIMEOUT, "The service behind this address did not answer in time.");
  } else if (atsk_respond_replace_error(txnp)) {
    atsk_attempts_failed(&txn->attempts, txnp, atsk_settings_view());
  } else if (txn->cookie != NULL && txn->attempts.n > 0) {
    cookie_offer(txnp, txn);
  }
  atsk_body_count_end(&txn->body_count);
  if (txn->is_upload) {
    atsk_deadlines_answer(txnp, &txn->attempts.treatment.timeouts);
  }
}

/* TS_HTTP_TXN_CLOSE_HOOK: gives everything back. */
static void
txn_end(TSHttpTxn txnp, struct txn *txn)
{
  if (txn->body_count.is_too_large || txn->deadline.is_over) {
    txn->attempts.is_failed = true; /* the endpoint is not to blame, nor to praise */
  }
  atsk_body_count_end(&txn->body_count);
  atsk_deadline_end(&txn->deadline);
  atsk_attempts_end(&txn->attempts, txnp);
  atsk_limits_release(&txn->hold);
  if (txn->cookie != NULL) {
    TSfree(txn->cookie);
    txn->cookie = NULL;
  }
  if (txn->is_logged) {
    atsk_log_fields_end(txnp, &txn->log);
  }
  txn_give(txn);
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
    if (!answer_read(txnp, txn)) {
      TSHttpTxnStatusSet(txnp, TS_HTTP_STATUS_GATEWAY_TIMEOUT);
      reenable = TS_EVENT_HTTP_ERROR;
    }
    break;
  case TS_EVENT_HTTP_SEND_RESPONSE_HDR:
    answer_send(txnp, txn);
    break;
  case TS_EVENT_HTTP_TXN_CLOSE:
    txn_end(txnp, txn); /* before the call below, which may begin the connection's next request */
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
  if (atsk_respond_init() != ATSK_OK || atsk_limits_init() != ATSK_OK) {
    (void)snprintf(why, why_size, "getrandom(2) gave no random bytes");
    return ATSK_E_STATE;
  }
  atsk_deadlines_init();
  return ATSK_OK;
}

/* --- forwarding -------------------------------------------------------------------------------------------------------------- */

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
}

/* What the decision holds becomes the transaction's. */
static void
txn_begin(struct txn *txn, const struct atsk_settings *settings, const struct atsk_decision *decision)
{
  struct atsk_attempts *attempts = &txn->attempts;
  attempts->pick                 = decision->pick;
  attempts->treatment            = *decision->treatment;
  attempts->begun_ms             = decision->now_ms;
  attempts->n                    = 0;
  attempts->is_safe              = decision->is_safe;
  attempts->is_guarded           = false;
  attempts->is_sent              = false;
  attempts->is_failed            = false;
  attempts->is_after_answer      = false;
  txn->hold                      = decision->hold;
  txn->cookie                    = decision->cookie;
  txn->is_upload                 = decision->body.is_there;
  txn->is_cached                 = settings->cache;
  txn->is_logged                 = settings->log_fields;
  if (txn->is_logged) {
    txn->log = decision->log;
  }
  txn->body_count.cont         = NULL;
  txn->body_count.is_too_large = false;
  txn->count_max               = decision->body.is_there && !decision->body.has_length ? decision->treatment->body_max : 0;
}

/* A pod answers on a connection that is its own for anything but GET, HEAD and OPTIONS: an idle one from the pool may be closed by the
 * pod this very moment, and what is not safe to send twice would be lost with it (502). */
static void
unsafe_prepare(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_decision *decision)
{
  TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_SERVER_SESSION_SHARING_MATCH, 0);
  if (decision->is_post_or_put && !decision->body.is_there) {
    atsk_incoming_complete_length(txnp, rri);
  }
}

static void
forward(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, const struct atsk_incoming *in,
        const struct atsk_decision *decision)
{
  struct txn *txn                = txn_take();
  struct atsk_attempts *attempts = &txn->attempts;
  txn_begin(txn, settings, decision);
  TSHttpTxnHookAdd(txnp, TS_HTTP_OS_DNS_HOOK, txn->cont);
  TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_REQUEST_HDR_HOOK, txn->cont);
  TSHttpTxnHookAdd(txnp, TS_HTTP_TXN_CLOSE_HOOK, txn->cont);
  atsk_next_hop_begin(txnp, rri, &attempts->pick, &attempts->hop);
  records_override(txnp, settings);
  atsk_deadlines_apply(txnp, &attempts->treatment.timeouts,
                       txn->is_upload               ? ATSK_DEADLINES_UPLOAD
                       : attempts->hop.is_websocket ? ATSK_DEADLINES_TUNNEL
                                                    : ATSK_DEADLINES_PLAIN);
  if (attempts->treatment.timeouts.request_ms != 0) {
    atsk_deadline_begin(&txn->deadline, txnp, attempts->treatment.timeouts.request_ms);
    guard(txnp, txn);
  }
  if (settings->cache || (attempts->treatment.retry_on & ATSK_RETRY_STATUS) || attempts->treatment.timeouts.request_ms != 0) {
    TSHttpTxnHookAdd(txnp, TS_HTTP_READ_RESPONSE_HDR_HOOK, txn->cont);
  }
  if (settings->cache) {
    atsk_cache_key_set(txnp, in);
  }
  if (!attempts->is_safe) {
    unsafe_prepare(txnp, rri, decision);
  }
  if (txn->is_upload || txn->cookie != NULL) {
    guard(txnp, txn);
  }
  /* Of a cache, a stale answer would have to be served: Traffic Server does that where it finds no next hop. */
  attempts->is_lone = attempts->pick.n == 1 && attempts->is_safe && !attempts->hop.is_name && !settings->cache;
  /* Last: it moves the header's strings, which the view borrows. */
  atsk_forwarded_take(txnp, rri->requestBufp, rri->requestHdrp, in->authority, in->host.port, settings, &txn->forwarded);
  if (txn->is_logged) {
    atsk_log_fields_begin(txnp, rri->requestBufp, rri->requestHdrp, settings);
  }
  atsk_count(ATSK_COUNT_REQUESTS_FORWARDED);
}

/* --- the remap hook ------------------------------------------------------------------------------------------------------------- */

static void
answer(TSHttpTxn txnp, const struct atsk_decision *decision)
{
  atsk_count(decision->answer.counter);
  if (decision->answer.text == NULL) {
    atsk_respond_grpc(txnp);
  } else if (decision->answer.status == TS_HTTP_STATUS_TOO_MANY_REQUESTS) {
    atsk_respond_later(txnp, decision->retry_after_s, decision->answer.text);
  } else {
    atsk_respond(txnp, decision->answer.status, decision->answer.text);
  }
}

TSRemapStatus
atsk_txn_remap(TSHttpTxn txnp, TSRemapRequestInfo *rri)
{
  struct atsk_incoming in;
  struct atsk_decision decision;
  const struct atsk_table *table       = atsk_read_begin();
  const struct atsk_settings *settings = atsk_settings_view();
  atsk_slow_headers_whole(txnp);
  atsk_decide(txnp, rri, table, settings, &in, &decision);
  atsk_read_end();
  if (decision.answer.status != TS_HTTP_STATUS_NONE) {
    if (settings->log_fields) {
      atsk_log_fields_begin(txnp, rri->requestBufp, rri->requestHdrp, settings);
    }
    answer(txnp, &decision);
    return TSREMAP_NO_REMAP_STOP;
  }
  forward(txnp, rri, settings, &in, &decision);
  return TSREMAP_DID_REMAP; /* plugins after us in the rule go on */
}
