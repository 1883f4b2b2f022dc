/* What a request wishes of a pick, by its rule's policies: the hash that decides, the endpoint of its cookie; and the cookie that tells the
 * client which endpoint it got.  ATS's threads, from the remap hook. */
#ifndef ATSK_PREFERENCE_H
#define ATSK_PREFERENCE_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "endpoints/balance.h"
#include "controller/controller.h"
#include "hooks/incoming.h"
#include "blob/policies.h"

ATSK_BEGIN_DECLS

/* Of a rule without balance and affinity policies: the options' algorithm.  `wish` is all zero but for `random`, `tries`, `now_ms`. */
void atsk_preference_default(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings,
                             struct atsk_pick_wish *wish);

/* Of one with.  `blob` has the policies' strings. */
void atsk_preference_wish(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_incoming *in,
                          const struct atsk_settings *settings, struct atsk_span blob, const struct atsk_policies *policies,
                          struct atsk_pick_wish *wish);

/* The Set-Cookie value of an affinity policy, for whatever endpoint: one block of TSmalloc, the caller's. */
struct atsk_cookie;
struct atsk_cookie *atsk_cookie_create(struct atsk_span blob, const struct atsk_policy_affinity *affinity, bool is_tls);

/* In TS_HTTP_SEND_RESPONSE_HDR_HOOK: adds it to the answer, with an endpoint's tag (not 0). */
void atsk_cookie_add(TSHttpTxn txnp, struct atsk_cookie *cookie, uint64_t tag);

ATSK_END_DECLS
#endif
