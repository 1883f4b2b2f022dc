/* See attempts.h. */
#include "hooks/attempts.h"

#include "hooks/deadlines.h"
#include "hooks/respond.h"
#include "controller/stats.h"

/* --- what became of one --------------------------------------------------------------------------------------------------------- */

/* Why an attempt gave no answer: one of enum atsk_retry_on. */
static uint32_t
failure_of(TSHttpTxn txnp)
{
  switch (TSHttpTxnServerStateGet(txnp)) {
  case TS_SRVSTATE_CONNECTION_ERROR:
  case TS_SRVSTATE_OPEN_RAW_ERROR:
    return ATSK_RETRY_CONNECT;
  case TS_SRVSTATE_ACTIVE_TIMEOUT:
  case TS_SRVSTATE_INACTIVE_TIMEOUT:
    return ATSK_RETRY_TIMEOUT;
  default:
    return ATSK_RETRY_RESET;
  }
}

static void
failure_note(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings, enum atsk_counter counter)
{
  attempts->is_failed = true;
  atsk_count(counter);
  if (atsk_pick_failed(&attempts->pick, &settings->defaults.health, atsk_deadlines_now_ms(),
                       atsk_request_number(txnp) + attempts->n)) {
    atsk_count(ATSK_COUNT_ENDPOINTS_EJECTED);
  }
}

void
atsk_attempts_failed(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings)
{
  if (attempts->is_failed || attempts->n == 0) {
    return;
  }
  switch (failure_of(txnp)) {
  case ATSK_RETRY_CONNECT:
    failure_note(attempts, txnp, settings, ATSK_COUNT_ENDPOINT_FAILURES_CONNECT);
    break;
  case ATSK_RETRY_TIMEOUT:
    failure_note(attempts, txnp, settings, ATSK_COUNT_ENDPOINT_FAILURES_TIMEOUT);
    break;
  default:
    failure_note(attempts, txnp, settings, ATSK_COUNT_ENDPOINT_FAILURES_OTHER);
    break;
  }
}

/* As Traffic Server does where there is no next hop (HttpTransact::handle_parent_died). */
TSHttpStatus
atsk_attempts_status(TSHttpTxn txnp)
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

/* --- whether there may be another ------------------------------------------------------------------------------------------------ */

/* A connection from the pool may be closed by the pod at any moment, as any idle one may; the request was not looked at then. */
static bool
was_pooled(TSHttpTxn txnp)
{
  return TSHttpTxnServerSsnTransactionCount(txnp) > 1;
}

/* Bodies are sent as they come, and are gone then.  (A safe request seldom has one; Traffic Server would try it again all the same, and wait
 * for its body in vain.) */
static bool
has_body(TSHttpTxn txnp)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  bool has       = false;
  if (TSHttpTxnClientReqGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return true;
  }
  TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, TS_MIME_FIELD_TRANSFER_ENCODING, TS_MIME_LEN_TRANSFER_ENCODING);
  if (field != TS_NULL_MLOC) {
    has = true;
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
  field = TSMimeHdrFieldFind(bufp, hdr, TS_MIME_FIELD_CONTENT_LENGTH, TS_MIME_LEN_CONTENT_LENGTH);
  if (field != TS_NULL_MLOC) {
    has |= TSMimeHdrFieldValueInt64Get(bufp, hdr, field, -1) != 0;
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  return has;
}

static bool
is_in_time(const struct atsk_attempts *attempts)
{
  return atsk_timeouts_left(attempts->treatment.retry_ms, attempts->begun_ms, atsk_deadlines_now_ms()) != 0;
}

static uint32_t
request_left_ms(const struct atsk_attempts *attempts)
{
  return atsk_timeouts_left(attempts->treatment.timeouts.request_ms, attempts->begun_ms, atsk_deadlines_now_ms());
}

static bool
budget_take(const struct atsk_settings *settings)
{
  if (atsk_retry_budget_take(&settings->defaults.retry_budget, atsk_counter_sum(ATSK_COUNT_REQUESTS_FORWARDED),
                             atsk_deadlines_now_ms())) {
    return true;
  }
  atsk_count(ATSK_COUNT_RETRIES_REFUSED_BUDGET);
  return false;
}

/* Another attempt, after one that gave no answer?  One that made no connection has cost no endpoint any work, and what replaces one on a
 * stale connection is no second one: neither is the budget's business. */
static bool
may_go_on(const struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings)
{
  const uint32_t failure = failure_of(txnp);
  const bool is_stale    = failure != ATSK_RETRY_TIMEOUT && was_pooled(txnp);
  if (request_left_ms(attempts) == 0 || TSHttpTxnServerStateGet(txnp) == TS_SRVSTATE_ACTIVE_TIMEOUT) {
    return false;
  }
  if (attempts->is_sent && has_body(txnp)) {
    return false;
  }
  if (is_stale) {
    return true;
  }
  if (attempts->n >= attempts->pick.n || !(attempts->treatment.retry_on & failure)) {
    return false;
  }
  if (!is_in_time(attempts)) {
    atsk_count(ATSK_COUNT_RETRIES_REFUSED_TIME);
    return false;
  }
  return failure == ATSK_RETRY_CONNECT || budget_take(settings);
}

/* --- the hooks' part ----------------------------------------------------------------------------------------------------------------- */

/* The attempt that begins is the one that the action names; says what comes after it. */
static void
action_set(struct atsk_attempts *attempts, TSHttpTxn txnp)
{
  if (attempts->n >= attempts->pick.n) {
    atsk_next_hop_none(txnp, &attempts->hop);
  } else {
    atsk_next_hop_set(txnp, &attempts->hop, &attempts->pick, attempts->n, false);
  }
}

enum atsk_attempts_verdict
atsk_attempts_next(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings, bool *is_guard_due)
{
  if (TSHttpTxnNextHopAddrGet(txnp) == NULL) {
    return ATSK_ATTEMPT_GO;
  }
  const uint32_t attempt = attempts->n;
  if (attempt == 0) {
    attempts->n         = 1;
    attempts->is_failed = false;
    if (attempts->is_lone) { /* its action names it still, so it fails into this hook; with luck, into none */
      return ATSK_ATTEMPT_GO;
    }
  } else {
    if (!attempts->is_after_answer) {
      atsk_attempts_failed(attempts, txnp, settings);
      if ((attempts->is_lone && !was_pooled(txnp)) || !may_go_on(attempts, txnp, settings)) {
        *is_guard_due = true; /* the error is said in our words */
        return ATSK_ATTEMPT_END;
      }
    }
    attempts->n++;
    attempts->is_failed       = false;
    attempts->is_after_answer = false;
    attempts->is_sent         = false;
    atsk_count(ATSK_COUNT_RETRIES);
    atsk_pick_advance(&attempts->pick, attempt % attempts->pick.n);
    atsk_deadlines_attempt(txnp, request_left_ms(attempts));
  }
  action_set(attempts, txnp);
  *is_guard_due = attempts->n >= attempts->pick.n || !attempts->is_safe; /* others end in a pod's answer or in another attempt */
  return attempt > 0 ? ATSK_ATTEMPT_GO_LATER : ATSK_ATTEMPT_GO;
}

bool
atsk_attempts_connected(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings)
{
  if (atsk_next_hop_is_refused(txnp, &attempts->hop, settings->allow_loopback_names)) {
    return false;
  }
  attempts->is_sent = true;
  /* The last choice, on a connection from the pool: it would answer on a fresh one.  Without this, a Service with one pod loses such a
   * request. */
  if (attempts->is_guarded && attempts->n >= attempts->pick.n && attempts->n < ATSK_TRIES_MAX && was_pooled(txnp)) {
    atsk_next_hop_set(txnp, &attempts->hop, &attempts->pick, attempts->n % attempts->pick.n, false);
  }
  return true;
}

static int
answer_status(TSHttpTxn txnp)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnServerRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return 0;
  }
  const int status = (int)TSHttpHdrStatusGet(bufp, hdr);
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  return status;
}

void
atsk_attempts_answered(struct atsk_attempts *attempts, TSHttpTxn txnp, const struct atsk_settings *settings)
{
  if (!atsk_treatment_retries_status(&attempts->treatment, answer_status(txnp))) {
    return;
  }
  failure_note(attempts, txnp, settings, ATSK_COUNT_ENDPOINT_FAILURES_STATUS);
  if (attempts->n >= attempts->pick.n || has_body(txnp) || request_left_ms(attempts) == 0 ||
      !(attempts->is_safe || (attempts->treatment.retry_on & ATSK_RETRY_NON_IDEMPOTENT))) {
    return;
  }
  if (!is_in_time(attempts)) {
    atsk_count(ATSK_COUNT_RETRIES_REFUSED_TIME);
    return;
  }
  if (budget_take(settings)) {
    atsk_next_hop_set(txnp, &attempts->hop, &attempts->pick, attempts->n, true);
    attempts->is_after_answer = true;
  }
}

void
atsk_attempts_end(struct atsk_attempts *attempts, TSHttpTxn txnp)
{
  if (attempts->n > 0 && !attempts->is_failed) {
    const TSServerState state = TSHttpTxnServerStateGet(txnp);
    if ((state == TS_SRVSTATE_CONNECTION_ALIVE || state == TS_SRVSTATE_TRANSACTION_COMPLETE) &&
        atsk_pick_succeeded(&attempts->pick)) {
      atsk_count(ATSK_COUNT_ENDPOINTS_RESTORED);
    }
  }
  atsk_pick_release(&attempts->pick);
}
