/* See decision.h. */
#include "hooks/decision.h"

#include "hooks/deadlines.h"
#include "table/match.h"
#include "blob/policies.h"
#include "table/request.h"
#include "hooks/respond.h"
#include "hooks/snippets.h"
#include "blob/vhost.h"

#include <string.h>

static const struct atsk_answer answer_forward   = {TS_HTTP_STATUS_NONE, ATSK_COUNT_REQUESTS_FORWARDED, ""};
static const struct atsk_answer answer_healthy   = {TS_HTTP_STATUS_OK, ATSK_COUNT_REQUESTS_HEALTH, "ready"};
static const struct atsk_answer answer_unhealthy = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_HEALTH, "not ready"};
static const struct atsk_answer answer_no_table  = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_NOT_READY,
                                                    "This proxy is starting and has no routes yet."};
static const struct atsk_answer answer_bad_host  = {TS_HTTP_STATUS_BAD_REQUEST, ATSK_COUNT_REQUESTS_BAD,
                                                    "The request names no valid host."};
static const struct atsk_answer answer_bad_path  = {TS_HTTP_STATUS_BAD_REQUEST, ATSK_COUNT_REQUESTS_BAD,
                                                    "The request's path is not valid."};
static const struct atsk_answer answer_long_path = {TS_HTTP_STATUS_REQUEST_URI_TOO_LONG, ATSK_COUNT_REQUESTS_BAD,
                                                    "The request's path is too long."};
static const struct atsk_answer answer_no_host   = {TS_HTTP_STATUS_NOT_FOUND, ATSK_COUNT_REQUESTS_NO_HOST,
                                                    "Nothing is served at this host."};
static const struct atsk_answer answer_no_path   = {TS_HTTP_STATUS_NOT_FOUND, ATSK_COUNT_REQUESTS_NO_PATH,
                                                    "Nothing is served at this path."};
static const struct atsk_answer answer_no_pod    = {TS_HTTP_STATUS_SERVICE_UNAVAILABLE, ATSK_COUNT_REQUESTS_NO_ENDPOINT,
                                                    "The service behind this address has no endpoint that is ready."};
static const struct atsk_answer answer_limited   = {TS_HTTP_STATUS_TOO_MANY_REQUESTS, ATSK_COUNT_REQUESTS_LIMITED,
                                                    "There are too many requests at a time. Try again later."};
static const struct atsk_answer answer_too_large = {TS_HTTP_STATUS_REQUEST_ENTITY_TOO_LARGE, ATSK_COUNT_REQUESTS_TOO_LARGE,
                                                    "The request's body is too large."};
static const struct atsk_answer answer_grpc      = {TS_HTTP_STATUS_OK, ATSK_COUNT_REQUESTS_GRPC, NULL};

static struct atsk_answer
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

/* Host and path, read and normalised; answer_forward, unless it ends here. */
static struct atsk_answer
incoming_read(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, struct atsk_incoming *in)
{
  struct atsk_answer answer = answer_of(atsk_incoming_path(txnp, in));
  if (answer.status != TS_HTTP_STATUS_NONE) {
    return answer;
  }
  const struct atsk_str health_path = atsk_health_path_view(settings);
  if (in->raw_path.len == health_path.len && memcmp(in->raw, health_path.ptr, health_path.len) == 0) {
    return atsk_controller_ready() ? answer_healthy : answer_unhealthy;
  }
  answer = answer_of(atsk_incoming_host(txnp, rri, in));
  if (answer.status != TS_HTTP_STATUS_NONE) {
    return answer;
  }
  answer = answer_of(atsk_path_normalise(in->raw_path, in->room, &in->path));
  if (answer.status == TS_HTTP_STATUS_NONE && settings->reject_encoded_slash && has_encoded_slash(in->path)) {
    return answer_bad_path;
  }
  return answer;
}

/* True: POST.  Methods are ATS's own constants, if it is a known one. */
static bool
method_read(TSHttpTxn txnp, TSRemapRequestInfo *rri, struct atsk_decision *out)
{
  int len             = 0;
  const char *method  = TSHttpHdrMethodGet(rri->requestBufp, rri->requestHdrp, &len);
  out->is_safe        = method == TS_HTTP_METHOD_GET || method == TS_HTTP_METHOD_HEAD || method == TS_HTTP_METHOD_OPTIONS;
  out->is_post_or_put = false;
  memset(&out->body, 0, sizeof out->body);
  if (!out->is_safe) {
    out->is_post_or_put = method == TS_HTTP_METHOD_POST || method == TS_HTTP_METHOD_PUT;
    atsk_admission_body(txnp, rri, false, &out->body);
  }
  return method == TS_HTTP_METHOD_POST;
}

/* What is refused although there is a route; with answer_forward, out->hold is held. */
static struct atsk_answer
admit(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, const struct atsk_match *match,
      const struct atsk_policies *policies, struct atsk_decision *out)
{
  const uint64_t max = out->treatment->body_max;
  if (method_read(txnp, rri, out) && atsk_admission_is_grpc(rri)) {
    return answer_grpc;
  }
  if (max != 0) {
    if (out->is_safe) {
      atsk_admission_body(txnp, rri, true, &out->body);
    }
    if (out->body.length > max) {
      return answer_too_large;
    }
  }
  if (policies != NULL && policies->limits != NULL) {
    struct atsk_limits_result result;
    const struct atsk_str exempt  = atsk_blob_str_view(match->vhost->blob, policies->limits->exempt);
    const struct atsk_span ranges = {(const uint8_t *)exempt.ptr, exempt.len};
    const uint64_t scope          = atsk_route_id(match->vhost->routes[policies->limits->scope]);
    atsk_admission_limits(txnp, rri, settings, policies->limits, ranges, scope, &out->hold, &result);
    out->retry_after_s = result.retry_after_s;
    if (result.verdict != ATSK_LIMITS_ALLOWED) {
      return answer_limited;
    }
  }
  return answer_forward;
}

/* An endpoint; false: none is there. */
static bool
choose(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, const struct atsk_incoming *in,
       const struct atsk_match *match, const struct atsk_policies *policies, struct atsk_decision *out)
{
  struct atsk_pick_wish wish;
  memset(&wish, 0, sizeof wish);
  wish.random                  = atsk_request_number(txnp);
  wish.tries                   = out->treatment->tries;
  wish.now_ms                  = out->now_ms;
  struct atsk_service *service = atsk_match_service(match, wish.random);
  if (service == NULL) {
    return false;
  }
  wish.random = wish.random * UINT64_C(0x9E3779B97F4A7C15) ^ wish.random >> 32; /* weights have drawn from it already */
  if (policies == NULL) {
    atsk_preference_default(txnp, rri, settings, &wish);
  } else {
    atsk_preference_wish(txnp, rri, in, settings, match->vhost->blob, policies, &wish);
  }
  if (settings->log_fields) {
    atsk_log_fields_take(&out->log, atsk_blob_str_view(match->vhost->blob, match->rule->object), atsk_service_label(service));
  }
  return atsk_service_choose(service, &wish, &out->pick) == ATSK_OK;
}

void
atsk_decide(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_table *table, const struct atsk_settings *settings,
            struct atsk_incoming *in, struct atsk_decision *out)
{
  struct atsk_policies own;
  const struct atsk_policies *policies = NULL;
  if (table == NULL) {
    out->answer = answer_no_table;
    return;
  }
  out->answer = incoming_read(txnp, rri, settings, in);
  if (out->answer.status != TS_HTTP_STATUS_NONE) {
    return;
  }
  const struct atsk_str host    = {in->host.bytes, in->host.len};
  const struct atsk_match match = atsk_match_request(table, atsk_incoming_port(txnp), host, in->path);
  if (match.kind != ATSK_MATCH_RULE) {
    out->answer = match.kind == ATSK_MATCH_NO_HOST ? answer_no_host : answer_no_path;
    return;
  }
  memset(&out->hold, 0, sizeof out->hold);
  out->cookie    = NULL;
  out->now_ms    = atsk_deadlines_now_ms();
  out->treatment = &settings->defaults.treatment;
  if (match.rule->n_policies > 0) {
    atsk_policies_view(match.vhost->blob, match.rule, &own);
    atsk_treatment_resolve(out->treatment, &own, &out->own);
    out->treatment = &out->own;
    policies       = &own;
  }
  out->answer = admit(txnp, rri, settings, &match, policies, out);
  if (out->answer.status != TS_HTTP_STATUS_NONE) {
    return;
  }
  if (!choose(txnp, rri, settings, in, &match, policies, out)) {
    atsk_limits_release(&out->hold);
    out->answer = answer_no_pod;
    return;
  }
  if (policies != NULL && policies->affinity != NULL) {
    out->cookie = atsk_cookie_create(match.vhost->blob, policies->affinity, atsk_incoming_is_tls(txnp));
  }
  if (policies != NULL && policies->snippet != NULL) {
    atsk_snippets_offer(TSHttpTxnIdGet(txnp), policies->snippet->id, atsk_blob_str_view(match.vhost->blob, match.rule->object),
                        atsk_blob_str_view(match.vhost->blob, policies->snippet->text));
  }
}
