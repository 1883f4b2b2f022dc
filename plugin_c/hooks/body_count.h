/* The size of a body that does not say it: chunked, or HTTP/2 without a length.  Counted while it is sent, by what the pod's kernel has
 * acknowledged, and cut when it is too large.  ATS's threads.
 *
 * Traffic Server 9.2 has nothing better: its request transforms need the whole body in memory first, as it sends a Content-Length, and
 * a pod that answers before it has read the body ends the process (HttpTunnel::abort_tunnel writes to a transform without a
 * continuation; seen).  So the count is looked at every ATSK_BODY_COUNT_MS, and what passes in that time is over the limit. */
#ifndef ATSK_BODY_COUNT_H
#define ATSK_BODY_COUNT_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

#define ATSK_BODY_COUNT_MS 20

struct atsk_body_count {
  TSHttpTxn txnp;
  TSCont cont;      /* NULL: not counting */
  TSAction pending; /* the next look */
  uint64_t max;     /* bytes */
  uint64_t before;  /* acknowledged on the connection before the body */
  bool is_too_large;
};

/* In TS_HTTP_SEND_REQUEST_HDR_HOOK: counts from here on.  `count` stays where it is until _end. */
void atsk_body_count_begin(struct atsk_body_count *count, TSHttpTxn txnp, uint64_t max);

/* Ends it, on the thread that began it; legal if it was not begun. */
void atsk_body_count_end(struct atsk_body_count *count);

ATSK_END_DECLS
#endif
