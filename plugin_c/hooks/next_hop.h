/* Where Traffic Server connects for a transaction: a pick's choices in the words of its response action and URL.  ATS's threads; nothing
 * here looks at the table. */
#ifndef ATSK_NEXT_HOP_H
#define ATSK_NEXT_HOP_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "endpoints/endpoints.h"

ATSK_BEGIN_DECLS

#define ATSK_LITERAL_MAX 48u /* an IPv6 address as text, NUL included */

/* Lives as long as the transaction: ATS keeps pointers to the texts. */
struct atsk_next_hop {
  bool is_name;      /* ExternalName: one choice, resolved by ATS */
  bool is_websocket; /* the client asks for one */
  union {
    char literal[ATSK_TRIES_MAX][ATSK_LITERAL_MAX]; /* one a choice */
    char name[ATSK_HOST_MAX + 1];
  } to;
};

/* In the remap hook: makes *hop the pick's first choice, tells ATS so, and names it in the URL, for other plugins and logs. */
void atsk_next_hop_begin(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_pick *pick, struct atsk_next_hop *hop);

/* Tells ATS where the next attempt goes; `choice` is one of the pick's.  `after_answer`: a pod has answered, its answer is to be thrown
 * away, and the attempt to be made (from the read-response hook); else only what gives no answer is tried again, and a request that
 * is not safe while no byte of it was sent (HttpTransact::is_request_retryable). */
void atsk_next_hop_set(TSHttpTxn txnp, struct atsk_next_hop *hop, const struct atsk_pick *pick, uint32_t choice, bool after_answer);

/* Tells ATS that there is no next attempt. */
void atsk_next_hop_none(TSHttpTxn txnp, struct atsk_next_hop *hop);

/* Has a name led to an address that what is written in the API must not lead to: loopback (unless allowed), link-local (a cloud's metadata
 * service), multicast, unspecified?  Once ATS has resolved it, before anything is sent. */
bool atsk_next_hop_is_refused(TSHttpTxn txnp, const struct atsk_next_hop *hop, bool allow_loopback);

ATSK_END_DECLS
#endif
