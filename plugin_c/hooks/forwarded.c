/* See forwarded.h.  One pass over the fields sorts out what the client sent; three are added, as late as can be.  Debian's Traffic Server
 * is built with ENABLE_MIME_SANITY_CHECK: it walks all fields of a header twice for every one that it attaches, and those of two headers
 * for every copy, and hashes each name that it does not know: these three.  Added in the remap hook they cost 8,000 instructions more,
 * of 140,000 for a request, and a cache's hit has no use for them. */
#include "hooks/forwarded.h"

#include "hooks/incoming.h"

#include <stdio.h>
#include <string.h>

#define FIELDS_MAX 1024 /* fields looked at; ATS's own limit of header bytes is reached before */

/* What one field of the client's request is to us. */
enum field_kind {
  FIELD_FOREIGN  = 0,
  FIELD_INTERNAL = 1, /* "@...": a plugin's own, never a client's */
  FIELD_PROTO    = 2,
  FIELD_HOST     = 4,
  FIELD_PORT     = 8,
  FIELD_CLAIM =
    16, /* another claim about the client: X-Forwarded-For and its kin, Forwarded, X-Real-IP, Client-IP, True-Client-IP */
};

/* Case-insensitive, and "_" counts as "-": WSGI and CGI see the two as one name, so a client could slip one past otherwise.
 * `lower` is in lower case. */
static bool
name_starts(const char *name, int len, const char *lower, int lower_len)
{
  if (len < lower_len) {
    return false;
  }
  for (int i = 0; i < lower_len; i++) {
    char c = name[i];
    c      = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
    if (c != lower[i]) {
      return false;
    }
  }
  return true;
}

static bool
name_is(const char *name, int len, const char *lower, int lower_len)
{
  return len == lower_len && name_starts(name, len, lower, lower_len);
}

#define STARTS(name, len, text) name_starts(name, len, text, (int)sizeof(text) - 1)
#define IS(name, len, text) name_is(name, len, text, (int)sizeof(text) - 1)

static enum field_kind
field_kind_of(const char *name, int len)
{
  if (len < 1) {
    return FIELD_FOREIGN;
  }
  switch (name[0]) {
  case '@':
    return FIELD_INTERNAL;
  case 'c':
  case 'C':
    return IS(name, len, "client-ip") ? FIELD_CLAIM : FIELD_FOREIGN;
  case 't':
  case 'T':
    return IS(name, len, "true-client-ip") ? FIELD_CLAIM : FIELD_FOREIGN;
  case 'f':
  case 'F':
    return IS(name, len, "forwarded") ? FIELD_CLAIM : FIELD_FOREIGN; /* RFC 7239 */
  case 'x':
  case 'X':
    if (!STARTS(name, len, "x-forwarded-")) {
      return IS(name, len, "x-real-ip") ? FIELD_CLAIM : FIELD_FOREIGN;
    }
    if (IS(name, len, "x-forwarded-proto")) {
      return FIELD_PROTO;
    }
    if (IS(name, len, "x-forwarded-host")) {
      return FIELD_HOST;
    }
    return IS(name, len, "x-forwarded-port") ? FIELD_PORT : FIELD_CLAIM;
  default:
    return FIELD_FOREIGN;
  }
}

/* Removes what this client may not say; returns the enum field_kind bits of what it said and may. */
static unsigned
fields_sort_out(TSMBuffer bufp, TSMLoc hdr, bool trusted)
{
  unsigned kept = 0;
  TSMLoc field  = TSMimeHdrFieldGet(bufp, hdr, 0);
  for (int n = 0; field != TS_NULL_MLOC && n < FIELDS_MAX; n++) {
    int len              = 0;
    const char *name     = TSMimeHdrFieldNameGet(bufp, hdr, field, &len);
    enum field_kind kind = name != NULL ? field_kind_of(name, len) : FIELD_FOREIGN;
    TSMLoc next          = TSMimeHdrFieldNext(bufp, hdr, field);
    if (kind == FIELD_INTERNAL || (kind != FIELD_FOREIGN && !trusted)) {
      (void)TSMimeHdrFieldDestroy(bufp, hdr, field);
    } else {
      kept |= (unsigned)kind;
    }
    (void)TSHandleMLocRelease(bufp, hdr, field);
    field = next;
  }
  if (field != TS_NULL_MLOC) {
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
  return kept;
}

static void
field_add(TSMBuffer bufp, TSMLoc hdr, const char *name, int name_len, const char *value, int value_len)
{
  TSMLoc field = TSMimeHdrFieldFind(bufp, hdr, name, name_len);
  if (field != TS_NULL_MLOC) { /* another plugin's, or ours of an attempt before */
    (void)TSHandleMLocRelease(bufp, hdr, field);
  } else if (TSMimeHdrFieldCreateNamed(bufp, hdr, name, name_len, &field) == TS_SUCCESS) {
    (void)TSMimeHdrFieldValueStringSet(bufp, hdr, field, -1, value, value_len);
    (void)TSMimeHdrFieldAppend(bufp, hdr, field);
    (void)TSHandleMLocRelease(bufp, hdr, field);
  }
}

#define FIELD_ADD(bufp, hdr, name, value, len) field_add(bufp, hdr, name, (int)sizeof(name) - 1, value, len)

void
atsk_forwarded_take(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, struct atsk_str authority, uint16_t port,
                    const struct atsk_settings *settings, struct atsk_forwarded *out)
{
  out->host_len = authority.len <= sizeof out->host ? (uint16_t)authority.len : 0;
  if (out->host_len > 0) {
    memcpy(out->host, authority.ptr, out->host_len);
  }
  out->port   = port;
  out->is_tls = atsk_incoming_is_tls(txnp);
  out->kept   = (uint8_t)fields_sort_out(bufp, hdr, atsk_incoming_is_trusted(txnp, settings));
}

/* The port that the client used, as its URL has it: the local one is often behind a Service's or a node's. */
static void
port_add(TSMBuffer bufp, TSMLoc hdr, const struct atsk_forwarded *forwarded)
{
  char digits[8];
  const uint16_t port = forwarded->port;
  if (port == 0 || port == 80 || port == 443) {
    const bool https = port != 0 ? port == 443 : forwarded->is_tls;
    FIELD_ADD(bufp, hdr, "X-Forwarded-Port", https ? "443" : "80", https ? 3 : 2);
  } else {
    int n = snprintf(digits, sizeof digits, "%u", (unsigned)port);
    FIELD_ADD(bufp, hdr, "X-Forwarded-Port", digits, n);
  }
}

void
atsk_forwarded_add(TSHttpTxn txnp, const struct atsk_forwarded *forwarded)
{
  TSMBuffer bufp = NULL;
  TSMLoc hdr     = TS_NULL_MLOC;
  if (TSHttpTxnServerReqGet(txnp, &bufp, &hdr) != TS_SUCCESS) {
    return;
  }
  if (!(forwarded->kept & FIELD_PROTO)) {
    FIELD_ADD(bufp, hdr, "X-Forwarded-Proto", forwarded->is_tls ? "https" : "http", forwarded->is_tls ? 5 : 4);
  }
  if (!(forwarded->kept & FIELD_HOST) && forwarded->host_len > 0) {
    FIELD_ADD(bufp, hdr, "X-Forwarded-Host", forwarded->host, forwarded->host_len);
  }
  if (!(forwarded->kept & FIELD_PORT)) {
    port_add(bufp, hdr, forwarded);
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, hdr);
}
