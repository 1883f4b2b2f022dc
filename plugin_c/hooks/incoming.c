/* See incoming.h. */
#include "hooks/incoming.h"

#include "hooks/client.h"

#include <netinet/in.h>
#include <string.h>

#define HOST_FIELD_MAX 512 /* bytes; a longer one is no host name anyway */

enum atsk_request_fault
atsk_incoming_path(TSHttpTxn txnp, struct atsk_incoming *in)
{
  TSMBuffer bufp = NULL;
  TSMLoc url     = TS_NULL_MLOC;
  if (TSHttpTxnPristineUrlGet(txnp, &bufp, &url) != TS_SUCCESS) {
    return ATSK_REQUEST_BAD_PATH;
  }
  int path_len = 0, params_len = 0;
  const char *path    = TSUrlPathGet(bufp, url, &path_len);
  const char *params  = ATSK_URL_PARAMS_GET(bufp, url, &params_len);
  size_t path_size    = path != NULL && path_len > 0 ? (size_t)path_len : 0;
  size_t params_size  = params != NULL && params_len > 0 ? (size_t)params_len + 1 : 0; /* with its ";" */
  const bool too_long = path_size >= sizeof in->raw || params_size >= sizeof in->raw - path_size;
  if (!too_long) {
    in->raw[0] = '/';
    if (path_size > 0) {
      memcpy(in->raw + 1, path, path_size);
    }
    if (params_size > 0) {
      in->raw[1 + path_size] = ';';
      memcpy(in->raw + 2 + path_size, params, params_size - 1);
    }
    in->raw_path.ptr = in->raw;
    in->raw_path.len = 1 + path_size + params_size;
  }
  (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, url);
  return too_long ? ATSK_REQUEST_LONG_PATH : ATSK_REQUEST_FINE;
}

/* Does the URL name the same host as the Host field?  Both as sent; the URL's is without port and brackets. */
static bool
authority_has_host(struct atsk_str authority, const char *url_host, size_t url_host_len)
{
  const char *text = authority.ptr;
  size_t rest      = authority.len;
  if (rest > 0 && text[0] == '[' && url_host[0] != '[') {
    text++;
    rest--;
  }
  return rest >= url_host_len && memcmp(text, url_host, url_host_len) == 0 &&
         (rest == url_host_len || text[url_host_len] == ':' || text[url_host_len] == ']');
}

/* An absolute form's authority wins over the Host field (RFC 9112 section 3.2.2).  ATS has made the field equal to it by now, but
 * for a request with Max-Forwards: 0 (HttpTransact::ModifyRequest): such a one, naming two hosts, is refused. */
static bool
names_two_hosts(TSHttpTxn txnp, struct atsk_str authority)
{
  TSMBuffer bufp = NULL;
  TSMLoc url     = TS_NULL_MLOC;
  bool two       = false;
  if (TSHttpTxnPristineUrlGet(txnp, &bufp, &url) == TS_SUCCESS) {
    int len          = 0;
    const char *host = TSUrlHostGet(bufp, url, &len);
    two              = host != NULL && len > 0 && !authority_has_host(authority, host, (size_t)len);
    (void)TSHandleMLocRelease(bufp, TS_NULL_MLOC, url);
  }
  return two;
}

/* HTTP/2's :authority is a Host field here; two fields, or one that is no host, never come so far (400 by ATS's parser). */
enum atsk_request_fault
atsk_incoming_host(TSHttpTxn txnp, TSRemapRequestInfo *rri, struct atsk_incoming *in)
{
  in->authority.ptr = NULL;
  in->authority.len = 0;
  in->host.len      = 0;
  in->host.port     = 0;
  TSMLoc field      = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, TS_MIME_FIELD_HOST, TS_MIME_LEN_HOST);
  if (field == TS_NULL_MLOC) {
    const int version = TSHttpHdrVersionGet(rri->requestBufp, rri->requestHdrp);
    return version >= TS_HTTP_VERSION(1, 1) ? ATSK_REQUEST_BAD_HOST : ATSK_REQUEST_FINE;
  }
  const struct atsk_str value = atsk_incoming_value(rri, field);
  (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
  if (value.len == 0 || value.len > HOST_FIELD_MAX) {
    return ATSK_REQUEST_BAD_HOST;
  }
  in->authority = value;
  if (names_two_hosts(txnp, in->authority)) {
    return ATSK_REQUEST_BAD_HOST;
  }
  return atsk_host_normalise(in->authority, &in->host);
}

uint16_t
atsk_incoming_port(TSHttpTxn txnp)
{
  const struct sockaddr *local = TSHttpTxnIncomingAddrGet(txnp);
  if (local == NULL) {
    return 0;
  }
  return local->sa_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)local)->sin6_port)
                                      : ntohs(((const struct sockaddr_in *)local)->sin_port);
}

bool
atsk_incoming_is_tls(TSHttpTxn txnp)
{
  return TSHttpTxnClientProtocolStackContains(txnp, "tls/") != NULL;
}

bool
atsk_incoming_is_trusted(TSHttpTxn txnp, const struct atsk_settings *settings)
{
  struct atsk_client client;
  if (TSHttpTxnIsInternal(txnp)) {
    return true;
  }
  if (settings->n_trusted == 0) {
    return false;
  }
  atsk_client_of_peer(TSHttpTxnClientAddrGet(txnp), &client);
  return atsk_client_is_trusted(settings, &client);
}

struct atsk_str
atsk_incoming_value(TSRemapRequestInfo *rri, TSMLoc field)
{
  struct atsk_str value;
  int len   = 0;
  value.ptr = TSMimeHdrFieldValueStringGet(rri->requestBufp, rri->requestHdrp, field, -1, &len);
  value.len = value.ptr != NULL && len > 0 ? (size_t)len : 0;
  return value;
}

bool
atsk_incoming_has_field(TSRemapRequestInfo *rri, const char *name, int len)
{
  TSMLoc field = TSMimeHdrFieldFind(rri->requestBufp, rri->requestHdrp, name, len);
  if (field != TS_NULL_MLOC) {
    (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
  }
  return field != TS_NULL_MLOC;
}

void
atsk_incoming_complete_length(TSHttpTxn txnp, TSRemapRequestInfo *rri)
{
  TSMLoc field = TS_NULL_MLOC;
  if (atsk_incoming_has_field(rri, TS_MIME_FIELD_CONTENT_LENGTH, TS_MIME_LEN_CONTENT_LENGTH) ||
      atsk_incoming_has_field(rri, TS_MIME_FIELD_TRANSFER_ENCODING, TS_MIME_LEN_TRANSFER_ENCODING) ||
      TSHttpTxnClientProtocolStackContains(txnp, "h2") != NULL) { /* HTTP/2 has bodies without either */
    return;
  }
  if (TSMimeHdrFieldCreateNamed(rri->requestBufp, rri->requestHdrp, TS_MIME_FIELD_CONTENT_LENGTH, TS_MIME_LEN_CONTENT_LENGTH,
                                &field) == TS_SUCCESS) {
    (void)TSMimeHdrFieldValueIntSet(rri->requestBufp, rri->requestHdrp, field, -1, 0);
    (void)TSMimeHdrFieldAppend(rri->requestBufp, rri->requestHdrp, field);
    (void)TSHandleMLocRelease(rri->requestBufp, rri->requestHdrp, field);
  }
}
