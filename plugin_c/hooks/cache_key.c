/* See cache_key.h. */
#include "hooks/cache_key.h"

#include <stdio.h>
#include <string.h>

#define QUERY_MAX 8192u
#define PREFIX_MAX (sizeof "https://:65535" + ATSK_HOST_MAX)

/* Writes "?query" of the URL as it came to `out`; its length, 0 without one, or more than `room` if it does not fit. */
static size_t
query_write(TSHttpTxn txnp, char *out, size_t room)
{
  TSMBuffer bufp = NULL;
  TSMLoc url     = TS_NULL_MLOC;
  size_t size    = 0;
  if (TSHttpTxnPristineUrlGet(txnp, &bufp, &url) == TS_SUCCESS) {
    int len           = 0;
    const char *query = TSUrlHttpQueryGet(bufp, url, &len);
    size              = query != NULL && len > 0 ? (size_t)len + 1 : 0;
    if (size > 0 && size <= room) {
      out[0] = '?';
      memcpy(out + 1, query, size - 1);
    }
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, url);
  }
  return size;
}

void
atsk_cache_key_set(TSHttpTxn txnp, const struct atsk_incoming *in)
{
  char url[PREFIX_MAX + ATSK_PATH_MAX + QUERY_MAX];
  const bool tls = atsk_incoming_is_tls(txnp);
  size_t len     = tls ? 8 : 7;
  memcpy(url, tls ? "https://" : "http://", len); /* not snprintf: this runs for every request */
  memcpy(url + len, in->host.bytes, in->host.len);
  len += in->host.len;
  if (in->host.port != 0 && in->host.port != (tls ? 443 : 80)) {
    len += (size_t)snprintf(url + len, sizeof ":65535", ":%u", (unsigned)in->host.port);
  }
  memcpy(url + len, in->raw_path.ptr, in->raw_path.len);
  len += in->raw_path.len;
  size_t query = query_write(txnp, url + len, sizeof url - len);
  if (query > sizeof url - len) {
    TSHttpTxnConfigIntSet(txnp, TS_CONFIG_HTTP_CACHE_HTTP, 0);
    return;
  }
  (void)TSCacheUrlSet(txnp, url, (int)(len + query)); /* refused if there is one already: that one stands */
}
