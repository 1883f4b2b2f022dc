/* The attempts that one request makes at endpoints: which is next, whether there may be another, and what became of each.  ATS's threads.
 *
 * Traffic Server makes the attempts; it asks where before each (TS_HTTP_OS_DNS_HOOK), and can be told there that there is to be none.
 * It tries again by itself, up to ATSK_TRIES_MAX, whatever gave no answer: any request that made no connection, and GET, HEAD, OPTIONS
 * and TRACE also after they were sent (HttpTransact::is_request_retryable).  What else was sent it never sends again, whatever a rule
 * says; retry-on non-idempotent can therefore only add that a status is tried again for methods that are not safe, without a body. */
#ifndef ATSK_ATTEMPTS_H
#define ATSK_ATTEMPTS_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "controller/controller.h"
#include "endpoints/endpoints.h"
#include "hooks/next_hop.h"
#include "policy/treatment.h"

ATSK_BEGIN_DECLS

/* One request's; part of a transaction's context. */
struct atsk_attempts {
  struct atsk_pick pick;
  struct atsk_next_hop hop;
  struct atsk_treatment treatment;
  uint64_t begun_ms;    /* when the request was decided on, atsk_deadlines_now_ms() */
  uint32_t n;           /* begun so far; attempt k is at choice k modulo pick.n */
  bool is_safe;         /* RFC 9110 section 9.2.1 */
  bool is_lone;         /* has one choice, and is guarded only once that has failed: each hook costs what a header does */
  bool is_guarded;      /* has the hook that looks at the answer of an attempt which may be the last */
  bool is_sent;         /* this attempt got a connection: something of the request may have arrived */
  bool is_failed;       /* this attempt has failed, and was counted */
  bool is_after_answer; /* the next one is made because of a pod's status */
};

enum atsk_attempts_verdict {
  ATSK_ATTEMPT_GO       = 0, /* the first one: go on */
  ATSK_ATTEMPT_GO_LATER = 1, /* another one: go on, from the event loop (txn.c, reenable_later) */
  ATSK_ATTEMPT_END      = 2, /* no more: end the transaction, likewise, with atsk_attempts_status() */
};

/* TS_HTTP_OS_DNS_HOOK: maybe once for the URL's own host, before a next hop is chosen, and then before every attempt.  After it the caller
 * sees to it that the answer is looked at if is_guard_due. */
enum atsk_attempts_verdict atsk_attempts_next(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings,
                                              bool *is_guard_due);

/* What is answered when the last attempt gave no answer: 504 for a timeout, else 502. */
TSHttpStatus atsk_attempts_status(TSHttpTxn txnp);

/* TS_HTTP_SEND_REQUEST_HDR_HOOK: connected, nothing sent yet.  False: nothing may be sent (next_hop.h). */
bool atsk_attempts_connected(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings) ATSK_MUST_CHECK;

/* TS_HTTP_READ_RESPONSE_HDR_HOOK, where the rule has statuses to try again: arranges for another attempt if there may be one. */
void atsk_attempts_answered(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings);

/* The attempt under way has failed; once for each, whoever finds out. */
void atsk_attempts_failed(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings);

/* TS_HTTP_TXN_CLOSE_HOOK: tells the endpoint of success, and lets go of it. */
void atsk_attempts_end(struct atsk_attempts *attempts, TSHttpTxn txnp);

ATSK_END_DECLS
#endif
