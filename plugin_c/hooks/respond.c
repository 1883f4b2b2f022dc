/* See respond.h. */
#include "hooks/respond.h"

#include "policy/grpc.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define TEXT_MAX 160u /* bytes of a body: one line, the id, a newline */

static uint64_t secret[2]; /* written once, before the first request */
static TSCont on_response_cont, on_grpc_cont;

static void
field_add(TSMBuffer bufp, TSMLoc hdr, const char *name, int name_len, const char *value, int value_len)
{
  TSMLoc field = TS_NULL_MLOC;
  if (TSMimeHdrFieldCreateNamed(bufp, hdr, name, name_len, &field) == TS_SUCCESS) {
    (void)TSMimeHdrFieldValueStringSet(bufp, hdr, field, -1, value, value_len);
    (void)TSMimeHdrFieldAppend(bufp, hdr, field);
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
}

/* Adds X-Request-Id, so that a user's report finds the access log's line. */
static void
request_id_add(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr)
{
  static const char name[] = "X-Request-Id";
  char id[ATSK_REQUEST_ID_LEN + 1];
  (void)snprintf(id, sizeof id, "%016llx", (unsigned long long)atsk_request_number(txnp));
  field_add(bufp, hdr, name, (int)sizeof name - 1, id, (int)ATSK_REQUEST_ID_LEN);
}

/* ATS says so on most of its own answers, but not where a plugin ended the transaction. */
static void
no_store_add(TSMBuffer bufp, TSMLoc hdr)
{
  static const char no_store[] = "no-store";
  TSMLoc field                 = TSMimeHdrFieldFind(bufp, hdr, TS_MIME_FIELD_CACHE_CONTROL, TS_MIME_LEN_CACHE_CONTROL);
  if (field != TS_NULL_MLOC) {
    (void)TSHandleMLocRelease(bufp, hdr, field);
  } else {
    field_add(bufp, hdr, TS_MIME_FIELD_CACHE_CONTROL, TS_MIME_LEN_CACHE_CONTROL, no_store, (int)sizeof no_store - 1);
  }
}

static int
on_response(TSCont contp, TSEvent event, void *edata)
{
  TSHttpTxn txnp = (TSHttpTxn)edata;
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  (void)contp, (void)event;
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) == TS_SUCCESS) {
    request_id_add(txnp, bufp, hdr);
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  }
  TSHttpTxnReenable(txnp, TS_EVENT_HTTP_CONTINUE);
  return 0;
}

/* Retry-After; the continuation is the transaction's own, its data the seconds. */
static int
on_later_response(TSCont contp, TSEvent event, void *edata)
{
  static const char name[] = "Retry-After";
  TSHttpTxn txnp           = (TSHttpTxn)edata;
  TSMBuffer bufp           = NULL;
  TSMLoc hdr               = TS_NULL_MLOC;
  if (event == TS_EVENT_HTTP_TXN_CLOSE) {
    TSContDestroy(contp);
  } else if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) == TS_SUCCESS) {
    char seconds[16];
    const int len = snprintf(seconds, sizeof seconds, "%u", (unsigned)(uintptr_t)TSContDataGet(contp));
    field_add(bufp, hdr, name, (int)sizeof name - 1, seconds, len);
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  }
  TSHttpTxnReenable(txnp, TS_EVENT_HTTP_CONTINUE);
  return 0;
}

static int
on_grpc_response(TSCont contp, TSEvent event, void *edata)
{
  static const char type[] = ATSK_GRPC_CONTENT_TYPE, status[] = "grpc-status", message[] = "grpc-message";
  TSHttpTxn txnp = (TSHttpTxn)edata;
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  (void)contp, (void)event;
  TSHttpTxnErrorBodySet(txnp, NULL, 0, NULL); /* none, and not ATS's own page either: trailers alone */
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) == TS_SUCCESS) {
    TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, TS_MIME_FIELD_CONTENT_TYPE, TS_MIME_LEN_CONTENT_TYPE);
    if (field != TS_NULL_MLOC) {
      (void)TSMimeHdrFieldDestroy(bufp, hdr, field);
      (void)TSHandleMLocRelease(bufp, hdr, field);
    }
    field_add(bufp, hdr, TS_MIME_FIELD_CONTENT_TYPE, TS_MIME_LEN_CONTENT_TYPE, type, (int)sizeof type - 1);
    field_add(bufp, hdr, status, (int)sizeof status - 1, ATSK_GRPC_STATUS, (int)sizeof ATSK_GRPC_STATUS - 1);
    field_add(bufp, hdr, message, (int)sizeof message - 1, ATSK_GRPC_MESSAGE, (int)sizeof ATSK_GRPC_MESSAGE - 1);
    request_id_add(txnp, bufp, hdr);
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  }
  TSHttpTxnReenable(txnp, TS_EVENT_HTTP_CONTINUE);
  return 0;
}

enum atsk_status
atsk_respond_init(void)
{
  if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret) {
    return ATSK_E_STATE;
  }
  on_response_cont = TSContCreate(on_response, NULL);
  on_grpc_cont     = TSContCreate(on_grpc_response, NULL);
  return ATSK_OK;
}

static uint64_t
mix(uint64_t x) /* splitmix64's finaliser: a bijection, so ids of one process never collide */
{
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t
atsk_request_number(TSHttpTxn txnp)
{
  return mix(mix(TSHttpTxnIdGet(txnp) ^ secret[0]) ^ secret[1]);
}

/* The body, in memory that ATS frees. */
static void
body_set(TSHttpTxn txnp, const char *text)
{
  char *body = (char *)TSmalloc(TEXT_MAX);
  int len    = snprintf(body, TEXT_MAX, "%s (request %016llx)\n", text, (unsigned long long)atsk_request_number(txnp));
  TSHttpTxnErrorBodySet(txnp, body, len > 0 && (size_t)len < TEXT_MAX ? (size_t)len : TEXT_MAX - 1,
                        TSstrdup("text/plain; charset=utf-8"));
}

void
atsk_respond(TSHttpTxn txnp, TSHttpStatus status, const char *text)
{
  TSHttpTxnStatusSet(txnp, status);
  body_set(txnp, text);
  TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_RESPONSE_HDR_HOOK, on_response_cont);
}

void
atsk_respond_later(TSHttpTxn txnp, uint32_t retry_after_s, const char *text)
{
  TSCont cont = TSContCreate(on_later_response, NULL);
  TSContDataSet(cont, (void *)(uintptr_t)retry_after_s);
  TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_RESPONSE_HDR_HOOK, cont);
  TSHttpTxnHookAdd(txnp, TS_HTTP_TXN_CLOSE_HOOK, cont);
  atsk_respond(txnp, TS_HTTP_STATUS_TOO_MANY_REQUESTS, text);
}

void
atsk_respond_grpc(TSHttpTxn txnp)
{
  TSHttpTxnStatusSet(txnp, TS_HTTP_STATUS_OK);
  TSHttpTxnHookAdd(txnp, TS_HTTP_SEND_RESPONSE_HDR_HOOK, on_grpc_cont);
}

/* None: ATS made the header to read an answer into, and none came. */
static bool
has_status(TSMBuffer bufp, TSMLoc hdr)
{
  bool has = TSHttpHdrStatusGet(bufp, hdr) != TS_HTTP_STATUS_NONE;
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  return has;
}

/* Has the answer come from a pod or the cache?  Then it is not ours to touch, whatever its status. */
static bool
answer_is_foreign(TSHttpTxn txnp)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnServerRespGet(txnp, &bufp, &hdr) == TS_SUCCESS && has_status(bufp, hdr)) {
    return true;
  }
  return TSHttpTxnCachedRespGet(txnp, &bufp, &hdr) == TS_SUCCESS && has_status(bufp, hdr);
}

/* The header `hdr` of an answer that ATS made becomes one of ours. */
static void
answer_replace(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, const char *text)
{
  body_set(txnp, text);
  request_id_add(txnp, bufp, hdr);
  no_store_add(bufp, hdr);
}

void
atsk_respond_instead(TSHttpTxn txnp, TSHttpStatus status, const char *text)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return;
  }
  const char *reason = TSHttpHdrReasonLookup(status);
  (void)TSHttpHdrStatusSet(bufp, hdr, status);
  (void)TSHttpHdrReasonSet(bufp, hdr, reason, (int)strlen(reason));
  answer_replace(txnp, bufp, hdr, text);
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
}

bool
atsk_respond_replace_error(TSHttpTxn txnp)
{
  TSMBuffer bufp   = NULL;
  TSMLoc hdr       = TS_NULL_MLOC;
  bool is_to_blame = false;
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return false;
  }
  const TSHttpStatus status = TSHttpHdrStatusGet(bufp, hdr);
  if (status == TS_HTTP_STATUS_REQUEST_TIMEOUT && !answer_is_foreign(txnp)) {
    answer_replace(txnp, bufp, hdr, "The request's body did not come in time.");
  } else if (status >= TS_HTTP_STATUS_INTERNAL_SERVER_ERROR && !answer_is_foreign(txnp)) {
    answer_replace(txnp, bufp, hdr,
                   status == TS_HTTP_STATUS_GATEWAY_TIMEOUT ? "The service behind this address did not answer in time."
                                                            : "The service behind this address could not be reached.");
    is_to_blame = true;
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
  return is_to_blame;
}
