/* What a request is refused for, though its route is known: too many of its client, a body too large, a protocol that cannot be carried.
 * ATS's threads, from the remap hook; nothing here answers. */
#ifndef ATSK_ADMISSION_H
#define ATSK_ADMISSION_H

#include <stdbool.h>

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "controller/controller.h"
#include "policy/client_limits.h"

ATSK_BEGIN_DECLS

/* Who sent it: the peer, or, if that is a trusted proxy, the last one in X-Forwarded-For that is none.  `rri`'s header as it came in. */
void atsk_admission_client(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings, struct atsk_client *out);

/* Does the request fit a rule's limits?  `exempt`: the policy's networks; `scope`: whose counts.  As atsk_limits_take(); what did not pass or
 * was not counted is counted (stats.h). */
void atsk_admission_limits(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_settings *settings,
                           const struct atsk_policy_limits *limits, struct atsk_span exempt, uint64_t scope,
                           struct atsk_limits_hold *hold, struct atsk_limits_result *result);

/* What the header says of a body. */
struct atsk_body_said {
  bool is_there;   /* it has one, or may have (HTTP/2 without a length) */
  bool has_length; /* Content-Length, which the connection holds it to */
  uint64_t length; /* bytes; 0 without has_length */
};
void atsk_admission_body(TSHttpTxn txnp, TSRemapRequestInfo *rri, bool is_safe_method, struct atsk_body_said *out);

/* Is it gRPC, by its Content-Type?  For POST alone, which all of gRPC is. */
bool atsk_admission_is_grpc(TSRemapRequestInfo *rri);

ATSK_END_DECLS
#endif
