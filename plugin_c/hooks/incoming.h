/* A request as it came in, and the normalised view of it that matching works on.  ATS's threads, from the remap hook. */
#ifndef ATSK_INCOMING_H
#define ATSK_INCOMING_H

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "controller/controller.h"
#include "table/request.h"

ATSK_BEGIN_DECLS

/* 16 KiB, meant for the stack: touched only as far as the path is long. */
struct atsk_incoming {
  struct atsk_host host;
  struct atsk_str authority; /* the Host field as sent; borrowed from the request header, until that is changed */
  struct atsk_str raw_path;  /* "/" path [";" params] as sent, without the query; borrowed from `raw` */
  struct atsk_str path;      /* raw_path normalised; borrowed from `raw` or `room` */
  char raw[ATSK_PATH_MAX];
  char room[ATSK_PATH_MAX];
};

/* Reads raw_path: before the rule's own rewriting, with the ";params" that ATS 9 splits off put back, so that "/private;x" is matched
 * as what it is.  (All slashes but one that a path starts with are gone by then: URL.cc, url_parse_http.)  ATSK_REQUEST_LONG_PATH,
 * _BAD_PATH. */
enum atsk_request_fault atsk_incoming_path(TSHttpTxn txnp, struct atsk_incoming *in) ATSK_MUST_CHECK;

/* Reads authority and host.  Both are empty for an HTTP/1.0 request without a Host field: rules without a host are for it.
 * ATSK_REQUEST_BAD_HOST. */
enum atsk_request_fault atsk_incoming_host(TSHttpTxn txnp, TSRemapRequestInfo *rri, struct atsk_incoming *in) ATSK_MUST_CHECK;

/* The port of ours that the client connected to, host order; 0 for a plugin's sub-request. */
uint16_t atsk_incoming_port(TSHttpTxn txnp);

/* Does the client speak TLS to us?  (The URL's scheme would not do: in absolute form it is the client's word.) */
bool atsk_incoming_is_tls(TSHttpTxn txnp);

/* Are the client's own words about itself believed: is it a trusted proxy, or a plugin's sub-request, whose fields are ours already? */
bool atsk_incoming_is_trusted(TSHttpTxn txnp, const struct atsk_settings *settings);

/* A field's value, borrowed from the header; empty: it has none. */
struct atsk_str atsk_incoming_value(TSRemapRequestInfo *rri, TSMLoc field);

/* Has the request a field of this name? */
bool atsk_incoming_has_field(TSRemapRequestInfo *rri, const char *name, int len);

/* An HTTP/1.1 request with neither length nor chunks has no body (RFC 9112 section 6.3), and curl -X POST sends such; ATS answers 411 to
 * POST and PUT then.  Adds Content-Length: 0.  Changes the header: what is borrowed from it is void afterwards. */
void atsk_incoming_complete_length(TSHttpTxn txnp, TSRemapRequestInfo *rri);

ATSK_END_DECLS
#endif
