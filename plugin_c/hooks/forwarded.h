/* What a pod is told about the client: X-Forwarded-{For,Proto,Host,Port}.  Copies that an untrusted client sent are removed, not
 * appended to; so are its "@" headers, which plugins take for their own.  ATS's threads. */
#ifndef ATSK_FORWARDED_H
#define ATSK_FORWARDED_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "controller/controller.h"

ATSK_BEGIN_DECLS

#define ATSK_AUTHORITY_MAX 320u /* a normalisable authority is shorter: 253 + "." + ":65535" */

/* What there is to tell; lives from one hook to the other. */
struct atsk_forwarded {
  char host[ATSK_AUTHORITY_MAX];
  uint16_t host_len; /* 0: the client named none */
  uint16_t port;     /* in its authority, host order; 0: none */
  bool is_tls;
  uint8_t kept; /* what the client said itself, and may; see forwarded.c */
};

/* In the remap hook.  `authority` as the client sent it, `port` the one in it (0: none).  Changes the request header `hdr` of `bufp`:
 * pointers into it are void afterwards. */
void atsk_forwarded_take(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, struct atsk_str authority, uint16_t port,
                         const struct atsk_settings *settings, struct atsk_forwarded *out);

/* In TS_HTTP_SEND_REQUEST_HDR_HOOK: adds to the pod's request what it does not have yet; of every attempt, as Traffic Server may have
 * made a new one.  X-Forwarded-For itself is appended by ATS as it builds that request. */
void atsk_forwarded_add(TSHttpTxn txnp, const struct atsk_forwarded *forwarded);

ATSK_END_DECLS
#endif
