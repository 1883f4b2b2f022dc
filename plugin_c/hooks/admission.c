/* See admission.h. */
#include "hooks/admission.h"

#include "hooks/client.h"
#include "hooks/incoming.h"
#include "policy/grpc.h"
#include "controller/stats.h"

#include <string.h>
#include <time.h>

#define FIELDS_MAX 16u /* X-Forwarded-For fields; more are as none, from the left */

static uint64_t
now_ns(void)
{
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void
atsk_admission_client(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, struct atsk_client *out)
{
  static const char name[] = "X-Forwarded-For";
  struct atsk_str values[FIELDS_MAX];
  size_t n = 0;
  atsk_client_of_peer(TSHttpTxnClientAddrGet(txnp), out);
  if (!atsk_client_is_trusted(settings, out)) {
    return;
  }
  TSMLoc field = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, name, (int)sizeof name - 1);
  while (field != TS_NULL_MLOC) {
    TSMLoc next = TSMimeHdrFieldNextDup(rri->requestBufp, rri->requestHdrp, field);
    if (n == FIELDS_MAX) {
      memmove(values, values + 1, (FIELDS_MAX - 1) * sizeof values[0]);
      n--;
    }
    values[n++] = atsk_incoming_value(rri, field);
    (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
    field = next;
  }
  while (n > 0 && atsk_client_of_forwarded(settings, values[n - 1], out)) {
    n--;
  }
}

void
atsk_admission_limits(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings,
                      const struct atsk_policy_limits *limits, struct atsk_span exempt, uint64_t scope,
                      struct atsk_limits_hold *hold, struct atsk_limits_result *result)
{
  struct atsk_limits_request request;
  request.limits = limits;
  request.exempt = exempt;
  request.scope  = scope;
  request.now_ns = now_ns();
  memset(&request.client, 0, sizeof request.client);
  if (limits->client_rate_milli != 0 || limits->client_concurrency != 0) {
    atsk_admission_client(txnp, rri, settings, &request.client);
  }
  atsk_limits_take(&request, hold, result);
  if (result->is_uncounted) {
    atsk_count(ATSK_COUNT_LIMITS_UNCOUNTED);
  }
  switch (result->verdict) {
  case ATSK_LIMITS_CLIENT_RATE:
    atsk_count(ATSK_COUNT_LIMITED_CLIENT_RATE);
    break;
  case ATSK_LIMITS_CLIENT_CONCURRENCY:
    atsk_count(ATSK_COUNT_LIMITED_CLIENT_CONCURRENCY);
    break;
  case ATSK_LIMITS_TOTAL_RATE:
    atsk_count(ATSK_COUNT_LIMITED_TOTAL_RATE);
    break;
  case ATSK_LIMITS_TOTAL_CONCURRENCY:
    atsk_count(ATSK_COUNT_LIMITED_TOTAL_CONCURRENCY);
    break;
  case ATSK_LIMITS_ALLOWED:
  default:
    break;
  }
}

/* HTTP/1.1 bodies have a length or chunks (RFC 9112 section 6.3).  HTTP/2's may have neither: of a method that has none as a rule we say
 * there is none, and Traffic Server, which looks at the stream, takes it or not. */
void
atsk_admission_body(TSHttpTxn txnp, TSRemapRequestInfo *rri, bool is_safe_method, struct atsk_body_said *out)
{
  TSMLoc field  = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, TS_MIME_FIELD_CONTENT_LENGTH, TS_MIME_LEN_CONTENT_LENGTH);
  out->is_there = false;
  out->length   = 0;
  out->has_length =
    field != TS_NULL_MLOC && !atsk_incoming_has_field(rri, TS_MIME_FIELD_TRANSFER_ENCODING, TS_MIME_LEN_TRANSFER_ENCODING);
  if (field != TS_NULL_MLOC) {
    const int64_t length = TSMimeHdrFieldValueInt64Get(rri->requestBufp, rri->requestHdrp, field, -1);
    (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
    if (out->has_length) {
      out->length   = length > 0 ? (uint64_t)length : 0;
      out->is_there = out->length > 0;
      return;
    }
  }
  out->is_there = atsk_incoming_has_field(rri, TS_MIME_FIELD_TRANSFER_ENCODING, TS_MIME_LEN_TRANSFER_ENCODING) ||
                  (!is_safe_method && TSHttpTxnClientProtocolStackContains(txnp, "h2") != NULL);
}

bool
atsk_admission_is_grpc(TSRemapRequestInfo *rri)
{
  TSMLoc field = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, TS_MIME_FIELD_CONTENT_TYPE, TS_MIME_LEN_CONTENT_TYPE);
  if (field == TS_NULL_MLOC) {
    return false;
  }
  const bool is = atsk_grpc_is(atsk_incoming_value(rri, field));
  (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
  return is;
}
