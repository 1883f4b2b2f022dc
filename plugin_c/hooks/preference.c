/* See preference.h. */
#include "hooks/preference.h"

#include "hooks/admission.h"
#include "endpoints/affinity.h"
#include "blob/vhost.h"

#include <string.h>

/* The first field's value; HTTP's list of several would be another value for the same client now and then. */
static bool
header_find(TSRemapRequestInfo *rri, struct atsk_str name, struct atsk_str *value)
{
  TSMLoc field = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, name.ptr, (int)name.len);
  if (field == TS_NULL_MLOC) {
    return false;
  }
  *value = atsk_incoming_value(rri, field);
  (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
  return value->len > 0;
}

/* HTTP/2 clients may send a field for each cookie (RFC 9113 section 8.2.3). */
static bool
cookie_find(TSRemapRequestInfo *rri, struct atsk_str name, struct atsk_str *value)
{
  bool is_found = false;
  TSMLoc field  = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, TS_MIME_FIELD_COOKIE, TS_MIME_LEN_COOKIE);
  while (field != TS_NULL_MLOC) {
    TSMLoc next = is_found ? TS_NULL_MLOC : TSMimeHdrFieldNextDup(rri->requestBufp, rri->requestHdrp, field);
    is_found    = atsk_cookie_find(atsk_incoming_value(rri, field), name, value);
    (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
    if (is_found && next != TS_NULL_MLOC) {
      (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, next);
      next = TS_NULL_MLOC;
    }
    field = next;
  }
  return is_found;
}

static void
hash_set(struct atsk_pick_wish *wish, const char *bytes, size_t len)
{
  wish->has_hash = true;
  wish->hash     = atsk_balance_hash(bytes, len);
}

static void
hash_by_address(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, struct atsk_pick_wish *wish)
{
  struct atsk_client client;
  atsk_admission_client(txnp, rri, settings, &client);
  if (client.family != 0) {
    hash_set(wish, (const char *)client.addr, client.family == ATSK_FAMILY_IPV4 ? 4 : 16);
  }
}

/* Path and query as sent; what follows "?" counts in another way than as part of the path. */
static void
hash_by_uri(TSHttpTxn txnp, const struct atsk_incoming *in, struct atsk_pick_wish *wish)
{
  TSMBuffer bufp = NULL;
  TSMLoc url     = TS_NULL_MLOC;
  hash_set(wish, in->raw_path.ptr, in->raw_path.len);
  if (TSHttpTxnPristineUrlGet(txnp, &bufp, &url) == TS_SUCCESS) {
    int len           = 0;
    const char *query = TSUrlHttpQueryGet(bufp, url, &len);
    if (query != NULL && len > 0) {
      wish->hash = wish->hash * UINT64_C(0x9E3779B97F4A7C15) ^ atsk_balance_hash(query, (size_t)len);
    }
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, url);
  }
}

void
atsk_preference_default(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, struct atsk_pick_wish *wish)
{
  wish->algorithm     = settings->defaults.load_balance;
  wish->panic_percent = settings->defaults.panic_percent;
  if (settings->defaults.load_balance == ATSK_BALANCE_HASH) { /* which the option has by address alone */
    hash_by_address(txnp, rri, settings, wish);
  }
}

static void
balance_wish(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_incoming *in, const struct atsk_settings *settings,
             struct atsk_span blob, const struct atsk_policy_balance *balance, struct atsk_pick_wish *wish)
{
  struct atsk_str value;
  wish->algorithm    = balance->algorithm;
  wish->load_percent = balance->load_percent;
  switch (balance->hash_source) {
  case ATSK_HASH_ADDRESS:
    hash_by_address(txnp, rri, settings, wish);
    break;
  case ATSK_HASH_URI:
    hash_by_uri(txnp, in, wish);
    break;
  case ATSK_HASH_HEADER:
    if (header_find(rri, atsk_blob_str_view(blob, balance->name), &value)) {
      hash_set(wish, value.ptr, value.len);
    }
    break;
  case ATSK_HASH_COOKIE:
    if (cookie_find(rri, atsk_blob_str_view(blob, balance->name), &value)) {
      hash_set(wish, value.ptr, value.len);
    }
    break;
  case ATSK_HASH_NONE:
  default:
    break;
  }
}

void
atsk_preference_wish(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_incoming *in, const struct atsk_settings *settings,
                     struct atsk_span blob, const struct atsk_policies *policies, struct atsk_pick_wish *wish)
{
  struct atsk_str value;
  if (policies->balance != NULL && policies->balance->algorithm != ATSK_BALANCE_DEFAULT) {
    wish->panic_percent = settings->defaults.panic_percent;
    balance_wish(txnp, rri, in, settings, blob, policies->balance, wish);
  } else {
    atsk_preference_default(txnp, rri, settings, wish);
  }
  if (policies->affinity != NULL && cookie_find(rri, atsk_blob_str_view(blob, policies->affinity->name), &value)) {
    wish->affinity_tag = atsk_tag_read(value);
  }
}

/* --- the cookie -------------------------------------------------------------------------------------------------------------- */

struct atsk_cookie { /* the text follows it */
  uint16_t len;
  uint16_t tag_at; /* where the tag's text goes */
};

static char *
cookie_text(struct atsk_cookie *cookie)
{
  return (char *)(cookie + 1);
}

struct atsk_cookie *
atsk_cookie_create(struct atsk_span blob, const struct atsk_policy_affinity *affinity, bool is_tls)
{
  static const char secure[]       = "; Secure";
  const struct atsk_str name       = atsk_blob_str_view(blob, affinity->name);
  const struct atsk_str attributes = atsk_blob_str_view(blob, affinity->attributes);
  const bool is_secure       = affinity->secure == ATSK_SECURE_ALWAYS || (affinity->secure == ATSK_SECURE_BY_SCHEME && is_tls);
  const size_t len           = name.len + 1 + ATSK_TAG_TEXT + attributes.len + (is_secure ? sizeof secure - 1 : 0);
  struct atsk_cookie *cookie = (struct atsk_cookie *)TSmalloc(sizeof *cookie + len);
  char *at                   = cookie_text(cookie);
  cookie->len                = (uint16_t)len; /* some 1200 at most: a valid blob's bounds */
  cookie->tag_at             = (uint16_t)(name.len + 1);
  memcpy(at, name.ptr, name.len);
  at[name.len] = '=';
  at += cookie->tag_at + ATSK_TAG_TEXT;
  if (attributes.len > 0) {
    memcpy(at, attributes.ptr, attributes.len);
    at += attributes.len;
  }
  if (is_secure) {
    memcpy(at, secure, sizeof secure - 1);
  }
  return cookie;
}

void
atsk_cookie_add(TSHttpTxn txnp, struct atsk_cookie *cookie, uint64_t tag)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  TSMLoc field   = TS_NULL_MLOC;
  if (TSHttpTxnClientRespGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return;
  }
  atsk_tag_write(tag, cookie_text(cookie) + cookie->tag_at);
  if (TSMimeHdrFieldCreateNamed(bufp, hdr, TS_MIME_FIELD_SET_COOKIE, TS_MIME_LEN_SET_COOKIE, &field) == TS_SUCCESS) {
    (void)TSMimeHdrFieldValueStringSet(bufp, hdr, field, -1, cookie_text(cookie), cookie->len);
    (void)TSMimeHdrFieldAppend(bufp, hdr, field);
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
}
